// What every page does with its data: text alone, so that a name is never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const by = id => document.getElementById(id);
const make = (name, text, parent) => { const e = document.createElement(name); if (text != null) e.textContent = text; if (parent) parent.append(e); return e; };
const say = (v, digits = 4) => v == null ? "–" : Number.isInteger(v) ? String(v) : Math.abs(v) < 1e-3 && v ? v.toExponential(2) : v.toFixed(digits);
const words = name => name.replaceAll("_", " ");
function heads(table, names) { for (const name of names) make("th", words(name), table.tHead.rows[0]).scope = "col"; }
function row(table, cells) { const made = make("tr", null, table.tBodies[0]); for (const cell of cells) make("td", cell, made); return made; }
