"use strict";
// The filter of the gallery, its order and its keys.
const gallery = (() => {
  const form = document.getElementById("filter");
  if (!form) return null;
  const list = document.getElementById("cards");
  const cards = [...list.children];
  const status = form.querySelector("output");
  const nothing = document.getElementById("nothing");
  const keys = ["verdict", "actual", "predicted"];
  const orders = {
    given: () => 0,
    loss: (a, b) => b.dataset.loss - a.dataset.loss,
    sure: (a, b) => b.dataset.probability - a.dataset.probability,
    unsure: (a, b) => a.dataset.probability - b.dataset.probability,
    path: (a, b) => a.dataset.path.localeCompare(b.dataset.path),
  };
  const texts = cards.map((card) => `${card.dataset.path}\n${card.querySelector(".names").textContent}`.toLowerCase());

  const apply = () => {
    const wanted = keys.map((key) => [key, form.elements[key].value]).filter(([, value]) => value !== "");
    const low = Number(form.elements.from.value || 0) / 100 - 1e-9;
    const high = Number(form.elements.to.value || 100) / 100 + 1e-9;
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    cards.forEach((card, i) => {
      const probability = Number(card.dataset.probability);
      const shown = wanted.every(([key, value]) => card.dataset[key] === value)
        && probability >= low && probability <= high && words.every((word) => texts[i].includes(word));
      card.hidden = !shown;
      count += shown ? 1 : 0;
    });
    nothing.hidden = count > 0;
    status.textContent = status.dataset.text.replace("{count}", count).replace("{all}", cards.length);
  };

  const sort = () => list.append(...[...cards].sort(orders[form.elements.sort.value]));

  // Browsers ignore an empty value for a group of radio buttons, so the button is looked for.
  const select = (element, value) => {
    if (element instanceof RadioNodeList) [...element].find((radio) => radio.value === value).checked = true;
    else element.value = value;
  };

  const choose = (dataset) => {
    form.reset();
    for (const key of keys) select(form.elements[key], dataset[key]);
    apply();
    const title = document.getElementById("gallery-title");
    title.scrollIntoView();
    title.focus({ preventScroll: true });
  };

  const visible = () => [...list.children].filter((card) => !card.hidden);

  const step = (distance) => {
    const shown = visible();
    const at = shown.indexOf(document.activeElement?.closest(".card"));
    const next = shown[at < 0 ? 0 : Math.min(Math.max(at + distance, 0), shown.length - 1)];
    next?.querySelector(".frame").focus();
    next?.scrollIntoView({ block: "nearest" });
  };

  const verdicts = { a: "", w: "wrong", r: "right" };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=radio]), select, textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "/") form.elements.text.focus();
    else if (event.key in verdicts) {
      select(form.elements.verdict, verdicts[event.key]);
      apply();
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else return;
    event.preventDefault();
  });

  form.hidden = false;
  form.addEventListener("input", (event) => (event.target.name === "sort" ? sort() : apply()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sort(); apply(); }));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-actual]");
    if (button) choose(button.dataset);
  });
  apply();
  return { visible };
})();
