{ // The gallery: sort, filter, enlarge.
  const body = document.querySelector("#cases tbody");
  const rows = [...body.rows]; // the most abnormal first, as numbered
  const search = document.getElementById("search");
  const truth = document.getElementById("truth");
  const visible = () => [...body.rows].filter((row) => !row.hidden);

  sortable(document.getElementById("cases"), (row, button) => row.dataset[button.dataset.key]);

  const plain = (text) => text.normalize("NFC").toLowerCase();
  const filter = () => {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = plain(`${row.dataset.id} ${row.dataset.group}`);
      const right = !truth || truth.value === "*" || truth.value === row.dataset.truth;
      row.hidden = !(right && words.every((word) => text.includes(word)));
    }
    const count = visible().length;
    document.getElementById("count").textContent =
      count === rows.length ? `${count} cases` : `${count} of ${rows.length} cases`;
  };
  search.addEventListener("input", filter);
  truth?.addEventListener("change", filter);

  const dialog = document.querySelector("dialog");
  let shown;
  const enlarge = (row) => {
    shown = row;
    const { id, truth, group, score, p, flagged } = row.dataset;
    document.getElementById("large-title").textContent = id;
    document.getElementById("large-facts").textContent =
      [truth, group, `score ${Number(score).toPrecision(4)}`, p && `p ${Number(p).toPrecision(2)}`, flagged]
        .filter(Boolean).join(" · ");
    const large = dialog.querySelectorAll("img");
    row.querySelectorAll("img").forEach((image, n) => { large[n].src = image.src; });
    if (!dialog.open) dialog.showModal();
  };
  const step = (by) => {
    const order = visible();
    const next = order[order.indexOf(shown) + by];
    if (next) enlarge(next);
  };
  for (const button of document.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => enlarge(rows[button.dataset.opens]));
  }
  dialog.addEventListener("click", (event) => {
    const by = event.target.dataset.step;
    if (by === "0" || event.target === dialog) dialog.close();
    else if (by) step(Number(by));
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}
