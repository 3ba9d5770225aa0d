// The view of wb.compare. state: see `state` in compare.py; columns and curves have one entry a run, newest first.
const STEP = 200; // rows that are drawn at a time: a thousand runs do not hold up the page
const GREY = "#8a93a0"; // of what is not chosen; seen on light and on dark
const isNumber = (value) => typeof value === "number";

function compareCells(a, b) {
  if (isNumber(a) && isNumber(b)) return a - b;
  if (isNumber(a) !== isNumber(b)) return isNumber(a) ? -1 : 1;
  return String(a).localeCompare(String(b));
}

/** A parameter keeps its digits: what a person has set is no measurement. */
function cellText(kind, value) {
  return kind === "parameter" && isNumber(value) ? String(Number(value.toPrecision(6))) : format(value);
}

function sparkline(values) {
  const width = 90, height = 20, [low, high] = extent(values);
  let pen = "M", path = "";
  values.forEach((v, i) => {
    if (!Number.isFinite(v)) { pen = "M"; return; }
    path += `${pen}${(2 + (i / Math.max(values.length - 1, 1)) * (width - 4)).toFixed(1)} ${(2 + (1 - (v - low) / (high - low)) * (height - 4)).toFixed(1)}`;
    pen = "L";
  });
  return make("svg:svg.wb-spark", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, make("svg:path", { d: path, stroke: GREY }));
}

function scatterChart(points, x, y, pick) {
  const numeric = points.every((p) => isNumber(p.x)), numbers = points.map((p) => p.x);
  const names = numeric ? [] : [...new Set(numbers)].sort(compareCells);
  const [low, high] = numeric ? extent(numbers) : [0, names.length - 1];
  const logX = numeric && low > 0 && high >= 100 * low;
  const pad = logX ? 0 : numeric ? (high - low) * 0.03 : 0.5;
  const series = points.map((p) => ({ ...p, points: [[numeric ? p.x : names.indexOf(p.x), p.y]] }));
  const axes = { x: logX ? `${x} (logarithmic)` : x, y, range: [low - pad, high + pad], logX, names: numeric ? null : names.map(String) };
  return chart(series, { ...axes, dots: true, pick: (one) => pick(one.row) });
}

function dropdown(name, options, value, changed) {
  const select = make("select", { "aria-label": name, onchange: changed }, ...options.map((option, i) => make("option", { value: i }, option)));
  select.value = Math.max(0, options.indexOf(value));
  return [make("label", {}, `${name} `, select), () => options[select.value]];
}

function render({ model, el }) {
  const { columns, curves, monitored } = model.get("state");
  const rows = curves.map((curve, i) => {
    const cells = columns.map((column) => column.values[i]);
    const named = columns.map((c, j) => (c.kind === "parameter" ? `${c.name}=` : "") + cellText(c.kind, cells[j]));
    return { ...curve, cells, label: cells[0], text: named.join(" ").toLowerCase(), line: null };
  });
  const chosen = new Map(); // row: its number, which is the smallest that no other has; after ten the colors come dashed
  let sorted = null, down = false, listed = rows, drawn = 0;

  rows.slice(0, 10).forEach((row, i) => chosen.set(row, i));
  const colorOf = (row) => (chosen.has(row) ? COLORS[chosen.get(row) % COLORS.length] : GREY);
  function toggle(row) {
    const taken = new Set(chosen.values());
    if (!chosen.delete(row)) chosen.set(row, [...taken, taken.size].findIndex((_, i) => !taken.has(i)));
    mark(row);
    drawCharts();
  }
  function mark(row) {
    if (!row.line) return;
    row.line.className = chosen.has(row) ? "chosen" : "";
    row.line.setAttribute("aria-selected", chosen.has(row));
    row.line.querySelector(".wb-spark path").setAttribute("stroke", colorOf(row));
  }

  function lineOf(row) {
    if (row.line) return row.line;
    const cells = columns.map(({ kind }, i) => {
      const text = cellText(kind, row.cells[i]);
      if (kind === "state") return make("td", {}, make("span.wb-badge", {}, text));
      return make(isNumber(row.cells[i]) || row.cells[i] === null ? "td.number" : "td", {}, text);
    });
    row.line = make("tr", { onclick: () => toggle(row) }, ...cells, make("td", {}, sparkline(row.values[monitored] ?? [])));
    const badge = row.line.querySelector(".wb-badge");
    if (badge) badge.classList.add(badge.textContent);
    mark(row);
    return row.line;
  }

  const body = make("tbody"), note = make("span.wb-note");
  const heads = columns.map((column, i) => {
    const numbers = column.values.some(isNumber);
    const by = () => { down = sorted === i && !down; sorted = i; drawTable(); };
    const parts = [column.name, make("span.wb-sort")]; // the arrow is where the column is not aligned
    const events = { onclick: by, onkeydown: (event) => event.key === "Enter" && by() };
    return make(numbers ? "th.number" : "th", { tabindex: 0, ...events }, ...(numbers ? parts.reverse() : parts));
  });
  const scroll = make("div.wb-scroll", { onscroll: () => scroll.scrollTop + 2 * scroll.clientHeight > scroll.scrollHeight && drawMore() },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads, make("th.wb-plain", {}, monitored))), body));
  const search = make("input", { type: "search", size: 26, placeholder: "filter, as in adam seed=1", "aria-label": "filter the runs", oninput: drawTable });
  const clear = make("button", { onclick: () => { const old = [...chosen.keys()]; chosen.clear(); old.forEach(mark); drawCharts(); } }, "Choose none");

  function drawMore() {
    body.append(...listed.slice(drawn, drawn + STEP).map(lineOf));
    drawn = Math.min(drawn + STEP, listed.length);
  }
  function drawTable() {
    const words = search.value.toLowerCase().split(/\s+/);
    listed = rows.filter((row) => words.every((word) => row.text.includes(word)));
    if (sorted !== null) {
      const missing = (row) => row.cells[sorted] === null;
      listed.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : compareCells(a.cells[sorted], b.cells[sorted]) * (down ? -1 : 1)));
    }
    heads.forEach((head, i) => {
      head.querySelector(".wb-sort").textContent = i === sorted ? (down ? "▼" : "▲") : "";
      head.setAttribute("aria-sort", i === sorted ? (down ? "descending" : "ascending") : "none");
    });
    note.textContent = listed.length === rows.length ? `${rows.length} runs` : `${listed.length} of ${rows.length} runs`;
    body.replaceChildren();
    drawn = scroll.scrollTop = 0;
    drawMore();
    drawScatter();
  }

  const names = [...new Set(curves.flatMap((curve) => Object.keys(curve.values)))];
  const [metricBox, metric] = dropdown("curves of", names, monitored, drawCurves);
  const ofKind = (...kinds) => columns.filter((c) => kinds.includes(c.kind)).map((c) => c.name);
  const measured = ofKind("metric", "epoch", "seconds"), varied = ofKind("parameter");
  const [yBox, yName] = dropdown("plot", measured, `best ${monitored}`, drawScatter);
  const [xBox, xName] = dropdown("over", varied, null, drawScatter);
  const overlay = make("div"), keys = make("figcaption"), scatter = make("div.wb-scatter");
  const valuesOf = (kinds, name) => columns.findIndex((c) => kinds.includes(c.kind) && c.name === name);

  function drawCurves() {
    const shown = [...chosen.keys()].filter((row) => row.values[metric()]);
    const series = shown.map((row) => ({ name: row.label, color: colorOf(row), dashed: chosen.get(row) >= COLORS.length, points: row.epochs.map((epoch, i) => [epoch, row.values[metric()][i]]) }));
    overlay.replaceChildren(chart(series, { x: "epoch", y: metric(), whole: true }));
    keys.replaceChildren(...series.map((s) => make(`span.wb-key${s.dashed ? ".dashed" : ""}`, { style: `--wb-color:${s.color}` }, s.name)));
    if (!shown.length) keys.append("Choose runs by a click on their lines in the table.");
  }
  function drawScatter() {
    if (!varied.length) return;
    const x = valuesOf(["parameter"], xName()), y = valuesOf(["metric", "epoch", "seconds"], yName());
    const known = listed.filter((row) => row.cells[x] !== null && isNumber(row.cells[y]));
    known.sort((a, b) => chosen.has(a) - chosen.has(b)); // the chosen ones on top
    const points = known.map((row) => ({ row, name: row.label, color: colorOf(row), x: row.cells[x], y: row.cells[y] }));
    scatter.replaceChildren(scatterChart(points, xName(), yName(), toggle));
  }
  const drawCharts = () => { drawCurves(); drawScatter(); };

  const figures = [];
  if (names.length) figures.push(make("figure", {}, make("div.wb-head", {}, metricBox), overlay, keys));
  if (varied.length) figures.push(make("figure", {}, make("div.wb-head", {}, yBox, xBox), scatter));
  el.replaceChildren(make("div.wb.wb-compare", { "data-lm-suppress-shortcuts": true }, make("div.wb-head", {}, search, clear, note), scroll, make("div.wb-charts", {}, ...figures)));
  if (names.length) drawCurves();
  drawTable();
}

export default { render };
