// What the cells of the matrix show, and the matrix around another class.
(() => {
  const form = document.getElementById("matrix-form");
  const table = document.getElementById("matrix-table");
  const data = JSON.parse(document.getElementById("matrix-data").textContent);
  const most = 20;
  const options = form.elements.around ? [...form.elements.around.options] : [];
  const names = new Map(options.map((option) => [Number(option.value), option.textContent]));
  const beginning = [...table.children];

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const header = (label, scope) => {
    const made = element("th");
    made.scope = scope;
    made.append(element("bdi", "name", names.get(label)));
    return made;
  };

  const cell = (actual, predicted, count) => {
    const made = element("td");
    if (!count) {
      made.append(element("span", "zero", "0"));
      return made;
    }
    const share = count / data.support[actual];
    const percent = `${(100 * share).toFixed(1)}\u00a0%`;
    const shade = Math.min(Math.floor(10 * share), 9);
    const button = element("button", `${actual === predicted ? "hit" : "miss"} shade${shade}`);
    button.type = "button";
    Object.assign(button.dataset, { verdict: "", actual, predicted });
    const values = { count: count.toLocaleString("en"), share: percent, actual: names.get(actual), predicted: names.get(predicted) };
    button.setAttribute("aria-label", data.cell.replace(/\{(\w+)\}/g, (_, key) => values[key]));
    button.append(element("b", "", values.count), " ", element("small", "", percent));
    made.append(button);
    return made;
  };

  const around = (label) => {
    const ties = new Map();
    const counts = new Map();
    for (const [actual, predicted, count] of data.cells) {
      counts.set(`${actual},${predicted}`, count);
      if (actual === predicted || (actual !== label && predicted !== label)) continue;
      const other = actual === label ? predicted : actual;
      ties.set(other, (ties.get(other) || 0) + count);
    }
    const others = [...ties].sort((a, b) => b[1] - a[1]).slice(0, most - 1).map(([other]) => other);
    const labels = [label, ...others];
    const head = element("tr");
    head.append(beginning[0].querySelector(".corner").cloneNode(true), ...labels.map((one) => header(one, "col")));
    const rows = labels.map((actual) => {
      const row = element("tr");
      const cells = labels.map((predicted) => cell(actual, predicted, counts.get(`${actual},${predicted}`)));
      row.append(header(actual, "row"), ...cells);
      return row;
    });
    const thead = element("thead");
    thead.append(head);
    const tbody = element("tbody");
    tbody.append(...rows);
    table.replaceChildren(thead, tbody);
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    table.dataset.cells = form.elements.cells.value;
    if (event.target.name !== "around") return;
    if (event.target.value === "") table.replaceChildren(...beginning);
    else around(Number(event.target.value));
  });
})();
