// What the views of Workbench draw with: elements, numbers, line charts. Text becomes text nodes, never markup.
const SVG = "http://www.w3.org/2000/svg";
const COLORS = ["#1976d2", "#e8710a", "#2e9e44", "#d6336c", "#7b5cd6", "#9a7b1c", "#0f8f8f", "#8a5a44", "#6c757d", "#c2255c"];

/** make("svg:path.line", {d: "M0 0"}, child, "text"): an element with a class, attributes and children. */
function make(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries({ class: classes.join(" "), ...attributes })) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== "" && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** A number with four significant digits; an en dash for what is none. */
function format(value) {
  if (typeof value === "boolean" || typeof value === "string") return String(value);
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  return size >= 1e6 || size < 1e-3 ? value.toExponential(2).replace(/\.?0*e\+?/, "e") : String(Number(value.toPrecision(4)));
}

/** Seconds as 8 s, 3:20 min or 2:05 h. */
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const pair = (a, b) => `${Math.floor(a)}:${String(Math.floor(b)).padStart(2, "0")}`;
  if (seconds < 60) return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${pair(seconds / 60, seconds % 60)} min`;
  return `${pair(seconds / 3600, (seconds % 3600) / 60)} h`;
}

/** About `count` round numbers from low to high. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** The smallest range around the values that is not empty. */
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (Number.isFinite(v)) { low = Math.min(low, v); high = Math.max(high, v); }
  if (low > high) return [0, 1];
  return low < high ? [low, high] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
}

/**
 * Points or lines over two axes.
 * series: [{name, points: [[x, y], ...], color, dashed, dot}]; a line breaks where y is not finite.
 * options: {title; x, y: names of the axes; range: [low, high] of x; logX; whole: x is counted; names: of the x 0, 1, ...;
 * dots: points without lines; pick(series), when a point is clicked}.
 */
function chart(series, { title = "", x = "", y = "", range = null, logX = false, whole = false, names = null, dots = false, pick = null } = {}) {
  const width = 460, height = 230, left = 58, right = 14, top = title ? 26 : 10, bottom = x ? 40 : 24;
  const place = (v) => (logX ? Math.log10(v) : v);
  const shown = series.map((s) => ({ ...s, points: s.points.filter((p) => !logX || p[0] > 0) }));
  const [x0, x1] = (range ?? extent(shown.flatMap((s) => s.points.map((p) => p[0])))).map(place);
  let [y0, y1] = extent(shown.flatMap((s) => s.points.map((p) => p[1])));
  [y0, y1] = [y0 - (y1 - y0) * 0.05, y1 + (y1 - y0) * 0.05];
  const px = (v) => left + ((place(v) - x0) / (x1 - x0 || 1)) * (width - left - right);
  const py = (v) => top + (1 - (v - y0) / (y1 - y0)) * (height - top - bottom);
  const svg = make("svg:svg.wb-chart", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title || `${y} over ${x}` });

  for (const value of ticks(y0, y1, 4)) {
    svg.append(make("svg:line.wb-grid", { x1: left, x2: width - right, y1: py(value), y2: py(value) }),
      make("svg:text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, format(value)));
  }
  const inside = (v) => px(v) >= left - 0.5 && px(v) <= width - right + 0.5;
  const powers = ticks(Math.floor(x0), Math.ceil(x1), 4).filter(Number.isInteger).map((e) => 10 ** e);
  const every = names ? Math.ceil(names.length / 8) : 1, letters = names ? Math.max(4, Math.floor((58 * every) / names.length)) : 0;
  const marks = names ? names.map((_, i) => i).filter((i) => i % every === 0) : (logX ? powers : ticks(x0, x1, 5)).filter(inside);
  for (const value of whole ? marks.filter(Number.isInteger) : marks) {
    const name = names ? names[value] : format(value), end = !names && px(value) > width - 34;
    svg.append(make("svg:text", { x: end ? width - 4 : px(value), y: height - bottom + 16, "text-anchor": end ? "end" : "middle" },
      names && name.length > letters ? `${name.slice(0, letters - 1)}…` : name, make("svg:title", {}, name)));
  }
  svg.append(make("svg:path.wb-axis", { d: `M${left} ${top}V${height - bottom}H${width - right}` }));
  if (title) svg.append(make("svg:text.wb-title", { x: left, y: 15 }, title));
  if (x) svg.append(make("svg:text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, x));

  shown.forEach((one, index) => {
    const color = one.color ?? COLORS[index % COLORS.length];
    const finite = one.points.filter((p) => Number.isFinite(p[1]));
    if (!dots) {
      let pen = "M";
      const path = one.points.map(([a, b]) => {
        if (!Number.isFinite(b)) { pen = "M"; return ""; }
        const move = `${pen}${px(a).toFixed(1)} ${py(b).toFixed(1)}`;
        pen = "L";
        return move;
      }).join("");
      svg.append(make("svg:path.wb-line", { d: path, stroke: color, "stroke-dasharray": one.dashed ? "5 4" : "" }, make("svg:title", {}, one.name)));
    }
    for (const p of dots || finite.length === 1 ? finite : finite.slice(-1)) {
      const dot = make("svg:circle", { cx: px(p[0]), cy: py(p[1]), r: dots ? 4 : 3, fill: color }, make("svg:title", {}, `${one.name}: ${format(p[1])}`));
      if (pick) { dot.addEventListener("click", () => pick(one)); dot.setAttribute("class", "wb-pick"); }
      svg.append(dot);
    }
  });
  return svg;
}
