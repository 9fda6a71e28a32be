// The figures of a model's card, drawn from the numbers of its report: reliability as SVG, confusion as a table.

import { draw, make, table } from "./dom.js";
import { count, message, percent } from "./messages.js";

const NUMBERED = 25; // labels up to which the cells of a confusion matrix are numbered
const STRONG = 0.5; // share of a row from which on a cell is filled, and its number light
const TICKS = [0, 0.25, 0.5, 0.75, 1];

/**
 * How often answers are right against how sure they are: on the diagonal where the model is calibrated.
 * @param {{items: number, confidence: number, accuracy: number}[]} bins
 * @param {number | null} line below which the page says that the model is unsure
 */
export function reliabilityPlot(bins, line) {
  const [left, top, side] = [62, 12, 300];
  const x = (share) => left + side * share;
  const y = (share) => top + side * (1 - share);
  const most = Math.max(...bins.map(({ items }) => items));
  const points = bins.map(({ confidence, accuracy }) => `${x(confidence)},${y(accuracy)}`).join(" ");
  const words = (share) => percent(share).replace(/[.,]0/, "");
  return draw(
    "svg",
    { viewBox: `0 0 ${left + side + 24} ${top + side + 46}`, class: "reliability", role: "img", "aria-label": message("plot.reliability", summary(bins)) },
    ...TICKS.flatMap((share) => [
      draw("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share), class: "grid" }),
      draw("line", { x1: x(share), x2: x(share), y1: y(0), y2: y(1), class: "grid" }),
      draw("text", { x: left - 7, y: y(share) + 4, "text-anchor": "end" }, words(share)),
      draw("text", { x: x(share), y: top + side + 17, "text-anchor": "middle" }, words(share)),
    ]),
    draw("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "diagonal" }),
    line === null ? null : draw("line", { x1: x(line), x2: x(line), y1: y(0), y2: y(1), class: "line" }),
    draw("polyline", { points, class: "curve" }),
    ...bins.map(({ items, confidence, accuracy }) =>
      draw(
        "circle",
        { cx: x(confidence), cy: y(accuracy), r: 3 + 3 * Math.sqrt(items / most), class: "bin" },
        draw("title", {}, message("plot.bin", { items: count(items), confidence: percent(confidence), accuracy: percent(accuracy) })),
      ),
    ),
    draw("text", { x: x(0.5), y: top + side + 40, "text-anchor": "middle", class: "axis" }, message("plot.sure")),
    draw("text", { x: 0, y: 0, "text-anchor": "middle", class: "axis", transform: `translate(14 ${y(0.5)}) rotate(-90)` }, message("plot.right")),
  );
}

/** For screen readers: where the plot is furthest from the diagonal. */
function summary(bins) {
  const worst = bins.reduce((one, other) => (deviation(other) > deviation(one) ? other : one));
  return { bins: count(bins.length), confidence: percent(worst.confidence), accuracy: percent(worst.accuracy) };
}
const deviation = ({ confidence, accuracy }) => Math.abs(confidence - accuracy);

/**
 * The confusion matrix: a row for each true label, coloured by its share of the row.
 * @param {number[][]} counts
 * @param {string[]} labels
 */
export function confusionTable(counts, labels) {
  const numbered = labels.length <= NUMBERED;
  const rows = counts.map((row, index) => {
    const total = row.reduce((so, items) => so + items, 0);
    const cells = row.map((items, column) => {
      const share = total ? items / total : 0;
      const title = message("plot.cell", { truth: labels[index], predicted: labels[column], items: count(items), share: percent(share) });
      const kind = `${index === column ? "hit" : "miss"}${share >= STRONG ? " strong" : ""}`;
      return make("td", { class: kind, "--share": share.toFixed(3), title }, numbered && items ? count(items) : "");
    });
    return make("tr", {}, make("th", { scope: "row" }, labels[index]), ...cells);
  });
  const heads = [make("td", {}), ...labels.map((label) => make("th", { scope: "col" }, make("span", {}, label)))];
  return table({ class: `confusion${numbered ? "" : " dense"}` }, heads, rows, make("caption", {}, message("plot.confusion")));
}
