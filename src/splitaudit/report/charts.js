"use strict";
// Draws the figures with the style sheet's colours, and again when those change: light, dark, paper.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { displayModeBar: false, responsive: true };
  const root = document.documentElement;
  const paperWidth = 660; // CSS pixels that fit between the margins of A4 and of US letter

  const colored = (value, style) => {
    if (typeof value === "string") {
      return value.replace(/var\((--[a-z-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    }
    if (Array.isArray(value)) return value.map((item) => colored(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, colored(item, style)]));
  };

  // A chart's lines are chosen in the table beside it, and what it shows in a list above it; the browser may remember
  // an earlier choice.
  const charts = [...document.querySelectorAll(".chart")].map((chart) => chart.id);
  const lists = [...document.querySelectorAll("select[data-chart]")];
  const choices = [...document.querySelectorAll("input[data-chart]")];
  const shownIn = (id) => figures[lists.find((list) => list.dataset.chart === id)?.value ?? id];
  const chosen = (id, trace) =>
    choices.every(
      (box) => box.checked || box.value !== trace.legendgroup || !box.dataset.chart.split(" ").includes(id),
    );

  const draw = () => {
    const style = getComputedStyle(root);
    const width = root.classList.contains("paper") ? { width: paperWidth } : {};
    for (const id of charts) {
      const { data, layout } = colored(shownIn(id), style);
      const shown = data.filter((trace) => chosen(id, trace));
      Plotly.react(id, shown, { ...layout, ...width }, config);
    }
  };

  // Paper can't be unfolded: what is worth its room is opened for it, and closed again.
  const folded = [...document.querySelectorAll("details[data-print]")].filter((part) => !part.open);
  const print = (on) => () => {
    root.classList.toggle("paper", on);
    for (const part of folded) part.open = on;
    draw();
  };

  // The box above a level's lines stands for all of them.
  const levels = [...document.querySelectorAll("input[data-all]")];
  const linesOf = (all) => choices.filter((box) => all.closest("tbody").contains(box));
  const choose = ({ target }) => {
    if (levels.includes(target)) for (const box of linesOf(target)) box.checked = target.checked;
    summarize();
    draw();
  };
  const summarize = () => {
    for (const all of levels) {
      const checked = linesOf(all).filter((box) => box.checked).length;
      all.checked = checked > 0;
      all.indeterminate = checked > 0 && checked < linesOf(all).length;
    }
  };

  summarize();
  draw();
  for (const box of [...choices, ...levels, ...lists]) {
    box.hidden = false;
    box.addEventListener("change", choose);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));
})();

// What a tile says on hover or focus covers what lies below it: Escape takes it away.
addEventListener("keydown", ({ key }) => {
  if (key === "Escape") document.querySelector(".tile:is(:focus, :hover)")?.classList.add("silent");
});
for (const event of ["focusout", "mouseover"]) {
  addEventListener(event, () => {
    for (const tile of document.querySelectorAll(".silent:not(:hover)")) tile.classList.remove("silent");
  });
}
