// A chart by uPlot: its colours are the page's, and the arrow keys read its points out as a pointer does.
const charts = [];
const colour = name => () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
// Where two points of a line have one x, each keeps a row of its own.
function joined(lines) {
  const rows = new Map();
  lines.forEach((line, n) => {
    const seen = new Map();
    for (const point of line.points) {
      const time = seen.get(point[0]) || 0, key = `${point[0]} ${time}`;
      seen.set(point[0], time + 1);
      if (!rows.has(key)) rows.set(key, { x: point[0], time, points: [] });
      rows.get(key).points[n] = point;
    }
  });
  return [...rows.values()].sort((a, b) => a.x - b.x || a.time - b.time);
}
function nearest(values, at) {
  for (let away = 0; away < values.length; away++) for (const n of [at - away, at + away]) if (values[n] != null) return n;
  return at;
}
// Where a logarithmic axis has numbers: at round ones, or else at its ends.
function rounds(low, high) {
  const decades = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, n) => Math.floor(low) + n);
  const among = digits => decades.flatMap(decade => digits.map(d => decade + Math.log10(d))).filter(v => v >= low && v <= high);
  return [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]].map(among).find(at => at.length > 2) || [low, (low + high) / 2, high];
}
function limits(values, { log, whole }) {
  let low = whole ? 0 : Math.min(...values), high = whole ? 1 : Math.max(...values);
  if (!whole && !log) { low = 0; high *= 1.05; }
  if (high - low < (log ? 1e-3 : 1e-12)) { if (log) low -= .05; high += log ? .05 : 1; }
  return [low, high];
}
// A line is { name, style: "first" or "second", points: [[x, y, what to add], ...], dots, bare, pale }; a bare one is dots alone,
// and pale ones stand in no legend. It is drawn into the page's element of the class "charts".
function chart(title, yName, lines, { log = false, whole = false, square = false, mark = null, markText = "", xName = "step" } = {}) {
  const far = p => p[0] != null && p[1] != null && (!log || p[1] > 0);
  const known = lines.map(l => ({ ...l, points: l.points.filter(far) })).filter(l => l.points.length);
  if (!known.length) return;
  const rows = joined(known), scaled = log ? Math.log10 : v => v, tick = v => String(Number(v.toPrecision(3)));
  const columns = [rows.map(r => r.x), ...known.map((_, n) => rows.map(r => r.points[n] ? scaled(r.points[n][1]) : null))];
  const last = square ? 1 : Math.max(1, columns[0].at(-1)), marked = mark != null && mark <= last;
  // A line that has no point everywhere says where the one is that it reads out.
  const told = (point, sparse) => say(point[1]) + (point[2] == null ? "" : `, ${point[2]}`) + (sparse ? ` at ${say(point[0])}` : "");
  const box = make("figure", null, document.querySelector(".charts")), caption = make("figcaption", null, box);
  make("strong", title, caption);
  if (marked) make("span", ` ${markText}`, caption).className = "dim";
  box.tabIndex = 0; box.setAttribute("role", "group"); box.setAttribute("aria-label", `${title}: ${yName} by ${xName}; arrow keys read its points`);
  const axis = { stroke: colour("ink"), font: "12px system-ui", labelFont: "12px system-ui", labelSize: 20, grid: { stroke: colour("line"), width: 1 }, ticks: { show: false } };
  const series = known.map((line, n) => ({
    label: line.name || yName, class: line.pale ? "pale" : line.style, stroke: colour(line.style), width: line.bare ? 0 : line.pale ? 1 : 2, alpha: line.pale ? .4 : 1, spanGaps: true,
    points: { show: Boolean(line.dots), size: rows.length > 20 ? 5 : 8, fill: colour(line.style) },
    value: (u, v, s, at) => at == null || !rows[at].points[n] ? "–" : told(rows[at].points[n], rows.some(r => !r.points[n])),
  }));
  const made = new uPlot({
    width: box.clientWidth || 320, height: 250, legend: { markers: { width: 3 } }, cursor: { y: false, drag: { x: false, y: false }, dataIdx: (u, s, at) => s && at != null ? nearest(columns[s], at) : at },
    scales: { x: { time: false, range: () => [0, last] }, y: { range: () => limits(columns.slice(1).flat().filter(v => v != null), { log, whole }) } },
    axes: [{ ...axis, label: xName, size: 30, values: (u, at) => at.map(tick) }, { ...axis, label: yName, size: 52, ...(log && { splits: (u, axis, low, high) => rounds(low, high) }), values: (u, at) => at.map(v => tick(log ? 10 ** v : v)) }],
    series: [{ label: xName, value: (u, v) => v == null ? "–" : say(v) }, ...series],
    hooks: { draw: [u => marked && dash(u, mark)] },
  }, columns, box);
  box.querySelector(".u-legend").setAttribute("aria-live", "polite");
  new ResizeObserver(() => box.clientWidth && made.setSize({ width: box.clientWidth, height: 250 })).observe(box);
  let at = -1;
  box.onkeydown = e => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: rows.length - 1 }[e.key];
    if (to == null) return;
    e.preventDefault(); at = Math.min(Math.max(to, 0), rows.length - 1);
    made.setCursor({ left: made.valToPos(rows[at].x, "x"), top: 0 });
    made.setLegend({ idxs: columns.map(values => nearest(values, at)) });
  };
  charts.push(made);
}
function dash(u, mark) {
  const { ctx, bbox } = u, x = u.valToPos(mark, "x", true);
  ctx.save(); ctx.strokeStyle = colour("dim")(); ctx.lineWidth = devicePixelRatio; ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke(); ctx.restore();
}
// Canvases are drawn with colours, not with rules that follow the light or the paper.
for (const medium of ["(prefers-color-scheme: dark)", "print"]) matchMedia(medium).addEventListener("change", () => charts.forEach(made => made.redraw()));
