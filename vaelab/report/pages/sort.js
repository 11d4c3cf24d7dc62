// The buttons in a table's head sort its rows by valueOf(row, button), a text.
const sortable = (table, valueOf) => {
  const body = table.tBodies[0];
  const collator = new Intl.Collator(undefined, { numeric: true });
  const sortBy = (button) => {
    const header = button.parentElement;
    const numeric = "numeric" in button.dataset;
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((one, two) => {
      const [a, b] = [valueOf(one, button), valueOf(two, button)];
      if (!a || !b) return !a - !b; // what is unknown comes last, whatever the direction
      return sign * (numeric ? a - b : collator.compare(a, b));
    }));
  };
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sortBy(button));
  }
};
