"use strict";
// Comforts only: without this script everything on the page can still be read and saved.
(() => {
  const say = (text) => { document.getElementById("status").textContent = text; };

  const button = (text, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", action);
    return made;
  };

  // Copy a form of a table; where a browser forbids it, the text is opened and selected instead.
  const copy = async (text, name) => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      say(`${name} copied`);
    } catch {
      text.closest("details").open = true;
      window.getSelection().selectAllChildren(text);
      say(`${name} selected: copy it with Ctrl-C`);
    }
  };
  for (const text of document.querySelectorAll("pre[data-form]")) {
    const name = text.dataset.form;
    const summary = text.parentElement.querySelector("summary");
    const made = button(`Copy as ${name}`, () => copy(text, name));
    const place = text.closest("article, details:not(.form)").querySelector(".files");
    place.append(" ", made);
    summary.textContent = `Show ${name}`;
  }

  // Sort rows by a column; what was not measured stays last, a third click brings back the order.
  const sortable = (table) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.querySelectorAll(".heads th")];
    const key = (row, column) => row.cells[column].dataset.order ?? row.cells[column].textContent.trim();
    const sort = (column) => {
      const states = { none: "descending", descending: "ascending", ascending: "none" };
      const state = states[heads[column].getAttribute("aria-sort") ?? "none"];
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      let sorted = rows;
      if (state !== "none") {
        heads[column].setAttribute("aria-sort", state);
        const sign = state === "ascending" ? 1 : -1;
        const numeric = heads[column].classList.contains("number");
        sorted = [...rows].sort((a, b) => {
          const [one, other] = [key(a, column), key(b, column)];
          if (!one || !other) return !one - !other;
          return sign * (numeric ? one - other : one.localeCompare(other));
        });
      }
      body.append(...sorted);
    };
    heads.forEach((head, column) => {
      const made = button(head.textContent, () => sort(column));
      made.className = "sort";
      head.replaceChildren(made);
    });
  };

  // Show only rows that contain a text.
  const filterable = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 9) return;
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "search";
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      rows.forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(wanted); });
      say(`${rows.filter((row) => !row.hidden).length} of ${rows.length} rows shown`);
    });
    label.append("Show rows with ", input);
    label.className = "filter";
    table.closest(".scroll").before(label);
  };

  for (const table of document.querySelectorAll("table.numbers")) {
    sortable(table);
    filterable(table);
  }

  // The list of contents folds away on a phone.
  const contents = document.querySelector(".contents details");
  if (contents && window.matchMedia("(max-width: 60rem)").matches) contents.open = false;
})();
