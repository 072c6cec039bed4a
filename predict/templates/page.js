"use strict";
(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const cards = [...document.querySelectorAll("#cards > li")];
  const status = form.querySelector("output");
  const nothing = document.getElementById("nothing");
  const keys = ["verdict", "actual", "predicted"];

  const apply = () => {
    const wanted = keys.map((key) => [key, form.elements[key].value]).filter(([, value]) => value !== "");
    let count = 0;
    for (const card of cards) {
      card.hidden = !wanted.every(([key, value]) => card.dataset[key] === value);
      count += card.hidden ? 0 : 1;
    }
    nothing.hidden = count > 0;
    status.textContent = status.dataset.text.replace("{count}", count).replace("{all}", cards.length);
  };

  // Browsers ignore an empty value for a group of radio buttons, so the button is looked for.
  const select = (element, value) => {
    if (element instanceof RadioNodeList) [...element].find((radio) => radio.value === value).checked = true;
    else element.value = value;
  };

  const choose = (button) => {
    for (const key of keys) select(form.elements[key], button.dataset[key]);
    apply();
    const title = document.getElementById("gallery-title");
    title.scrollIntoView();
    title.focus({ preventScroll: true });
  };

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  for (const button of document.querySelectorAll("button[data-actual]")) {
    button.addEventListener("click", () => choose(button));
  }
  apply();
})();
