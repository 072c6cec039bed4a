// Tables that sort by a column and show the rows that match a search.
(() => {
  const value = (row, column) => {
    const cell = row.children[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));

  const sort = (header) => {
    const body = header.closest("table").tBodies[0];
    const first = value(body.rows[0], header.cellIndex);
    // Numbers begin with the largest, names with A.
    const usual = typeof first === "number" ? "descending" : "ascending";
    const other = usual === "ascending" ? "descending" : "ascending";
    const direction = header.getAttribute("aria-sort") === usual ? other : usual;
    for (const one of header.parentElement.children) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [value(row, header.cellIndex), row]);
    body.append(...rows.sort((a, b) => sign * compare(a[0], b[0])).map(([, row]) => row));
  };

  for (const header of document.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sort(header));
    header.replaceChildren(button);
  }
  for (const search of document.querySelectorAll("input[data-rows]")) {
    search.closest("label").hidden = false;
    const rows = [...document.getElementById(search.dataset.rows).tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row, i) => { row.hidden = !words.every((word) => texts[i].includes(word)); });
    });
  }
})();
