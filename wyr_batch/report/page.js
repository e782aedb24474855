
const search = document.querySelector(".search");
if (search) {
  const rows = [...document.querySelectorAll("tr[data-read]")];
  const said = search.querySelector("output");
  search.hidden = false;
  search.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const found = words.every((word) => text.includes(word));
      row.hidden = document.getElementById(row.dataset.read).hidden = !found;
      n += found;
    }
    said.textContent = words.length ? `${n} of ${rows.length} ${said.dataset.rows}` : "";
  });
}
