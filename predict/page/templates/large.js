// The large view: a card by itself, and the way to the next one.
(() => {
  const dialog = document.getElementById("large");
  if (!dialog || !gallery) return;
  const sheet = dialog.querySelector(".sheet");
  const counter = dialog.querySelector("output");
  let card = null;

  const neighbors = document.getElementById("neighbors");
  const known = neighbors && JSON.parse(document.getElementById("neighbors-data").textContent);

  // The training images that are most like the one of the card.
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  };
  const showNeighbors = () => {
    const found = known.ofRow[card.id.slice("picture-".length)] ?? [];
    neighbors.hidden = !found.length;
    neighbors.querySelector("ul").replaceChildren(...found.map(([number, similarity]) => {
      const { name, label, path, picture } = known.images[number];
      const item = element("li");
      if (picture) {
        const image = element("img");
        image.alt = "";
        image.src = picture;
        item.append(image);
      }
      const text = element("p");
      text.append(element("bdi", `name ${String(label) === card.dataset.actual ? "is-right" : "is-wrong"}`, name), " ", element("span", "quiet", similarity.toFixed(2)), element("bdi", "code", path));
      item.append(text);
      return item;
    }));
  };

  const show = (chosen) => {
    card = chosen;
    const image = card.querySelector("img").cloneNode();
    image.loading = "eager";
    sheet.replaceChildren(image, card.querySelector(".caption").cloneNode(true));
    const shown = gallery.visible();
    counter.textContent = shown.includes(card) ? `${shown.indexOf(card) + 1} / ${shown.length}` : "";
    if (known) showNeighbors();
    if (!dialog.open) dialog.showModal();
  };

  const step = (distance) => {
    const shown = gallery.visible();
    const next = shown[shown.indexOf(card) + distance];
    if (next) show(next);
  };

  document.addEventListener("click", (event) => {
    const frame = event.target.closest(".card .frame");
    const finding = event.target.closest("[data-picture]");
    if (frame) show(frame.closest(".card"));
    else if (finding) show(document.getElementById(`picture-${finding.dataset.picture}`));
    else if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    else if (event.target.closest("[data-step]")) step(Number(event.target.closest("[data-step]").dataset.step));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "k") step(-1);
    else if (event.key === "ArrowRight" || event.key === "j") step(1);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    if (card && !card.hidden) card.querySelector(".frame").focus();
    else document.getElementById("gallery-title").focus();
  });

  // The pictures are in the page once: the lists below show them again.
  for (const finding of document.querySelectorAll("[data-picture]")) {
    const source = document.querySelector(`#picture-${finding.dataset.picture} img`);
    finding.querySelector("img").src = source.src;
  }
})();
