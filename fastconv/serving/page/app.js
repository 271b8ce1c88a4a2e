// The page: draw or drop an image, or type numbers; see what the network makes of it.
"use strict";

const $ = (id) => document.getElementById(id);
const pad = $("pad"), pen = pad.getContext("2d", { willReadFrequently: true });
const view = $("view"), seen = view.getContext("2d", { willReadFrequently: true });
const SHOWN = 10; // classes with a bar
const MOST = 1024; // pixels of a side that the page unpacks by itself where the size is free

let cards = [], card = null;
let token = sessionStorage.getItem("fastconv-token") || "";
let drawn = false; // something is on the pad that was drawn, not dropped
let dropped = null; // the file that was dropped
let asking = null; // AbortController of the request under way
let savedUrl = null;

// -- the server -----------------------------------------------------------------------------------

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function loadCards() {
  const answer = await fetch("models", { headers: headers() });
  $("access").hidden = answer.status !== 401;
  if (!answer.ok) throw new Error((await answer.json()).error);
  cards = (await answer.json()).sort((a, b) => a.name.localeCompare(b.name));
}

async function refresh() {
  try {
    await loadCards();
    const ready = await fetch("v2/health/ready");
    const reason = ready.ok ? "" : (await ready.json()).error;
    if (!cards.length) return say(reason || "no model is served", true);
    const key = (c) => `${c.name} ${c.version}`;
    const before = card && key(card);
    const next = cards.find((c) => key(c) === before) || cards.find((c) => card && c.name === card.name) || cards[0];
    const changed = before !== key(next);
    card = next;
    if (changed) choose();
    showCard();
    say(reason || `ready on ${card.provider.replace("ExecutionProvider", "")}`, Boolean(reason || card.fallback));
  } catch (error) {
    say(error instanceof TypeError ? "the server does not answer" : error.message, true);
  }
}

function say(words, bad) {
  $("status").textContent = words;
  $("status").classList.toggle("bad", bad);
}

function choose() {
  $("choice").hidden = cards.length < 2;
  const option = (c) => new Option(`${c.name} (${c.version})`, `${c.name} ${c.version}`, false, c === card);
  $("model").replaceChildren(...cards.map(option));
  document.querySelector("main").hidden = false;
  document.title = `${card.name} · fastconv`;
  const image = card.image;
  $("drawing").hidden = !image;
  $("json").hidden = Boolean(image);
  const draws = image && image.channels === 1;
  pad.setAttribute("aria-label", draws ? "Drawing area" : "Image");
  $("help").textContent = !image ? "One sample, or a list of them." : draws
    ? "Draw with the pointer, or drop an image anywhere. By keyboard: arrows move, space lowers and raises the pen, Delete clears."
    : "Drop an image anywhere, or open one.";
  if (image) clear(); else { $("text").value = example(); showCurl(); }
}

// -- asking ---------------------------------------------------------------------------------------

function address() {
  const query = new URLSearchParams();
  if (cards.length > 1) query.set("model", card.name);
  if (card.classifier) query.set("top", String(SHOWN));
  if (card.image && $("invert").checked) query.set("invert", "1");
  const text = query.toString();
  return new URL("predict" + (text ? "?" + text : ""), location.href).href;
}

async function ask(body, name, text) {
  if (asking) asking.abort();
  const mine = asking = new AbortController();
  showCurl(name, text);
  saveAs(body, name);
  const start = performance.now();
  try {
    const type = { "Content-Type": body.type || "application/json" };
    const answer = await fetch(address(), { method: "POST", body, headers: headers(type), signal: mine.signal });
    const found = await answer.json();
    if (mine.signal.aborted) return;
    if (!answer.ok) throw new Error(found.error);
    problem("");
    $("time").textContent = `answered in ${(performance.now() - start).toFixed(0)} ms`;
    showAnswer(found);
    refresh();
  } catch (error) {
    if (error.name !== "AbortError") problem(error.message);
  }
}

function problem(words) {
  $("problem").textContent = words;
  $("problem").hidden = !words;
  if (words) { $("bars").replaceChildren(); $("answer").hidden = true; $("time").textContent = ""; }
}

function showAnswer(found) {
  const one = found.results && found.results.length === 1;
  $("answer").hidden = Boolean(one);
  $("bars").hidden = !one;
  if (!one) { $("answer").textContent = JSON.stringify(found.results || found.outputs, null, 1); return; }
  const rows = found.results[0].predictions;
  const scores = rows.map((row) => row.probability ?? row.score);
  const low = Math.min(0, ...scores), high = rows[0].probability === undefined ? Math.max(...scores) : 1;
  $("bars").replaceChildren(...rows.map((row, i) => {
    const item = document.createElement("li");
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.style.width = `${(100 * (scores[i] - low)) / (high - low || 1)}%`;
    const label = document.createElement("span");
    label.textContent = row.class;
    const value = document.createElement("span");
    value.className = "value";
    value.textContent = row.probability === undefined ? scores[i].toPrecision(4) : `${(100 * scores[i]).toFixed(1)} %`;
    item.append(bar, label, value);
    return item;
  }));
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function showCurl(name = "image.png", text = "") {
  const pieces = ["curl"];
  if (token) pieces.push('-H "Authorization: Bearer $FASTCONV_TOKEN"');
  const json = name.endsWith(".json");
  if (json) pieces.push("-H 'Content-Type: application/json'");
  const data = json && text && text.length <= 400 ? text : "@" + name;
  pieces.push(`--data-binary ${quoted(data)}`, quoted(address()));
  $("curl").textContent = pieces.join(" \\\n  ");
}

function saveAs(body, name) {
  if (savedUrl) URL.revokeObjectURL(savedUrl);
  savedUrl = URL.createObjectURL(body);
  Object.assign($("save"), { href: savedUrl, download: name, hidden: false, textContent: `Save ${name}` });
}

// -- drawing --------------------------------------------------------------------------------------

const cursor = { x: 140, y: 140, down: false, shown: false };
let last = null, timer = 0;
let ink = null; // the pad without the keyboard's cursor

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, pad.width, pad.height);
  seen.fillRect(0, 0, view.width, view.height);
  if (asking) asking.abort();
  clearTimeout(timer);
  drawn = false; dropped = null; last = null; cursor.down = false; ink = null;
  $("bars").replaceChildren();
  $("answer").hidden = true;
  $("save").hidden = true;
  $("time").textContent = "";
  problem("");
  showCurl();
}

function canDraw() {
  return card && card.image && card.image.channels === 1;
}

function stroke(x, y) {
  if (dropped) clear();
  Object.assign(pen, { strokeStyle: "#fff", lineWidth: 22, lineCap: "round", lineJoin: "round" });
  pen.beginPath();
  pen.moveTo(...(last || [x, y]));
  pen.lineTo(x, y + (last ? 0 : 0.01));
  pen.stroke();
  last = [x, y];
  drawn = true;
  if (!timer) timer = setTimeout(() => { timer = 0; sendDrawing(); }, 150);
}

function place(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) * pad.width) / box.width, ((event.clientY - box.top) * pad.height) / box.height];
}

pad.addEventListener("pointerdown", (event) => {
  if (!canDraw() || event.button) return;
  hideCursor();
  pad.setPointerCapture(event.pointerId);
  last = null;
  stroke(...place(event));
});
pad.addEventListener("pointermove", (event) => {
  if (pad.hasPointerCapture(event.pointerId)) stroke(...place(event));
});

pad.addEventListener("keydown", (event) => {
  if (!canDraw()) return;
  const step = event.shiftKey ? 4 : 14;
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (event.key === " " || event.key === "Enter") {
    hideCursor();
    cursor.down = !cursor.down;
    last = null;
    if (cursor.down) stroke(cursor.x, cursor.y);
  } else if (event.key === "Delete" || event.key === "Backspace") {
    clear();
  } else if (move) {
    hideCursor();
    cursor.x = Math.min(pad.width - 12, Math.max(12, cursor.x + move[0]));
    cursor.y = Math.min(pad.height - 12, Math.max(12, cursor.y + move[1]));
    if (cursor.down) stroke(cursor.x, cursor.y);
  } else {
    return;
  }
  event.preventDefault();
  showCursor();
});
pad.addEventListener("blur", () => { hideCursor(); cursor.down = false; });
pad.addEventListener("focus", () => { if (canDraw() && pad.matches(":focus-visible")) showCursor(); });

function showCursor() {
  ink = pen.getImageData(0, 0, pad.width, pad.height);
  pen.beginPath();
  pen.arc(cursor.x, cursor.y, 11, 0, 2 * Math.PI);
  Object.assign(pen, { strokeStyle: cursor.down ? "#f66" : "#6cf", lineWidth: 3 });
  pen.stroke();
}

function hideCursor() {
  if (ink) pen.putImageData(ink, 0, 0);
  ink = null;
}

// The drawing as MNIST has its digits: scaled to 20/28 of the side, its centre of mass in the middle.
function centred(width, height) {
  const pixels = (ink || pen.getImageData(0, 0, pad.width, pad.height)).data;
  let left = pad.width, right = -1, top = pad.height, bottom = -1, mass = 0, mx = 0, my = 0;
  for (let y = 0, i = 0; y < pad.height; y++) {
    for (let x = 0; x < pad.width; x++, i += 4) {
      const v = pixels[i];
      if (!v) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
      mass += v; mx += v * x; my += v * y;
    }
  }
  if (!mass) return null;
  const source = document.createElement("canvas");
  source.width = pad.width;
  source.height = pad.height;
  source.getContext("2d").putImageData(ink || pen.getImageData(0, 0, pad.width, pad.height), 0, 0);
  const scale = (Math.min(width, height) * 20) / 28 / Math.max(right - left + 1, bottom - top + 1);
  view.width = width;
  view.height = height;
  seen.fillStyle = "#000";
  seen.fillRect(0, 0, width, height);
  Object.assign(seen, { imageSmoothingEnabled: true, imageSmoothingQuality: "high" });
  const x = width / 2 - (mx / mass + 0.5) * scale, y = height / 2 - (my / mass + 0.5) * scale;
  seen.drawImage(halved(source, scale), x, y, pad.width * scale, pad.height * scale);
  return view;
}

// Halved until one smooth step is left: a single large step would leave strokes out.
function halved(canvas, scale) {
  while (scale < 0.5) {
    const half = document.createElement("canvas");
    half.width = Math.ceil(canvas.width / 2);
    half.height = Math.ceil(canvas.height / 2);
    half.getContext("2d").drawImage(canvas, 0, 0, half.width, half.height);
    canvas = half;
    scale *= 2;
  }
  return canvas;
}

function sendDrawing() {
  const { width, height } = card.image;
  if (drawn && centred(width || 28, height || 28)) sendView("drawing");
}

async function sendView(name) {
  if (card.image.files) {
    const blob = await new Promise((done) => view.toBlob(done, "image/png"));
    return ask(blob, `${name}.png`);
  }
  const text = JSON.stringify(numbers());
  return ask(new Blob([text], { type: "application/json" }), `${name}.json`, text);
}

// The view's pixels as the network takes them, for a server that cannot read image files.
function numbers() {
  const { channels, layout, range } = card.image;
  const whole = /INT/.test(card.inputs[0].datatype);
  const { width, height } = view, data = seen.getImageData(0, 0, width, height).data;
  const value = (y, x, c) => {
    const i = 4 * (y * width + x);
    const unit = (channels === 1 ? 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2] : data[i + c]) / 255;
    const v = range[0] + ($("invert").checked ? 1 - unit : unit) * (range[1] - range[0]);
    return whole ? Math.round(v) : Number(v.toPrecision(6));
  };
  const count = (n, f) => Array.from({ length: n }, (_, i) => f(i));
  return layout === "NCHW"
    ? count(channels, (c) => count(height, (y) => count(width, (x) => value(y, x, c))))
    : count(height, (y) => count(width, (x) => count(channels, (c) => value(y, x, c))));
}

// -- image files ----------------------------------------------------------------------------------

async function open(file) {
  if (!file || !card || !card.image) return;
  clear();
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return problem(`${file.name} is not an image that this browser can read`);
  }
  dropped = file;
  const fit = Math.min(pad.width / picture.width, pad.height / picture.height);
  const w = picture.width * fit, h = picture.height * fit;
  pen.drawImage(picture, (pad.width - w) / 2, (pad.height - h) / 2, w, h);
  const shrink = Math.min(1, MOST / Math.max(picture.width, picture.height));
  view.width = card.image.width || Math.round(picture.width * shrink);
  view.height = card.image.height || Math.round(picture.height * shrink);
  Object.assign(seen, { imageSmoothingEnabled: true, imageSmoothingQuality: "high", fillStyle: "#fff" });
  seen.fillRect(0, 0, view.width, view.height); // transparent parts lie over white
  seen.drawImage(picture, 0, 0, view.width, view.height);
  sendFile();
}

function sendFile() {
  if (card.image.files && /^image\/(png|jpeg)$/.test(dropped.type)) return ask(dropped, dropped.name);
  return sendView(dropped.name.replace(/\.\w+$/, ""));
}

$("file").addEventListener("change", (event) => { open(event.target.files[0]); event.target.value = ""; });
document.addEventListener("dragover", (event) => { event.preventDefault(); $("veil").hidden = !(card && card.image); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("veil").hidden = true; });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("veil").hidden = true;
  open(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) open(event.clipboardData.files[0]); });

// -- numbers --------------------------------------------------------------------------------------

function example() {
  const sample = (shape) => shape.length ? Array(Math.min(shape[0] < 0 ? 8 : shape[0], 4096)).fill(0).map(() => sample(shape.slice(1))) : 0;
  const size = (input) => input.shape.slice(1).reduce((a, n) => a * Math.abs(n), 1);
  const one = (input) => size(input) > 4096 ? [] : sample(input.shape.slice(1));
  const value = card.inputs.length === 1 ? one(card.inputs[0]) : Object.fromEntries(card.inputs.map((i) => [i.name, [one(i)]]));
  return JSON.stringify(value);
}

$("json").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    JSON.parse($("text").value);
  } catch (error) {
    return problem(`not JSON: ${error.message}`);
  }
  ask(new Blob([$("text").value], { type: "application/json" }), "input.json", $("text").value);
});

// -- the card -------------------------------------------------------------------------------------

function shape(tensor) {
  return `${tensor.name}  ${tensor.datatype} [${tensor.shape.map((n) => (n < 0 ? "*" : n)).join(", ")}]`;
}

function showCard() {
  const { proof, metadata } = card;
  const rows = [
    ["name", `${card.name}, version ${card.version}`],
    ["runs on", card.provider],
    card.fallback && ["instead of the GPU", card.fallback, true],
    ["proof", !proof ? "none" : !proof.samples ? `none: ${proof.reason}`
      : `${proof.samples} samples, ${proof.difference.toExponential(1)} of the scale away from the trainer (tolerance ${proof.tolerance.toExponential(1)})`],
    ...card.inputs.map((t) => ["input", shape(t)]),
    ...card.outputs.map((t) => ["output", shape(t)]),
    card.labels && ["classes", card.labels.length > 24 ? `${card.labels.length}` : card.labels.join(", ")],
    card.image && ["black, white", card.image.range.join(", ")],
    ["batches", `up to ${card.max_batch}`],
    ["answered", `${card.statistics.inference_stats.success.count}, in batches: ${card.statistics.execution_count}`],
    metadata.version && ["exported by", `fastconv ${metadata.version}`],
    metadata.weights_sha256 && ["weights", `sha256 ${metadata.weights_sha256.slice(0, 16)}…`],
  ].filter(Boolean);
  $("card").replaceChildren(...rows.flatMap(([name, value, bad]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    dd.classList.toggle("bad", Boolean(bad));
    return [dt, dd];
  }));
  showLatency(card.latency);
}

function seconds(s) {
  return s < 1 ? `${Number((1000 * s).toPrecision(2))} ms` : `${s} s`;
}

function showLatency({ bounds, counts }) {
  const total = counts.reduce((a, b) => a + b, 0), most = Math.max(1, ...counts);
  $("histogram").replaceChildren(...counts.map((n, i) => {
    const bar = document.createElement("div");
    bar.style.height = n ? `${Math.max(3, (100 * n) / most)}%` : "0";
    bar.title = `${n} ${i < bounds.length ? "within " + seconds(bounds[i]) : "longer"}`;
    return bar;
  }));
  const below = (share) => {
    let sum = 0;
    const i = counts.findIndex((n) => (sum += n) >= share * total);
    return i < bounds.length ? `≤ ${seconds(bounds[i])}` : `> ${seconds(bounds.at(-1))}`;
  };
  const words = total ? `half of the answers ${below(0.5)}, 99 % ${below(0.99)}` : "no requests yet";
  $("latency").textContent = total ? `${seconds(bounds[0])} … ${seconds(bounds.at(-1))}: ${words}` : words;
  $("histogram").setAttribute("aria-label", words);
}

// -- the rest -------------------------------------------------------------------------------------

$("clear").addEventListener("click", clear);
$("invert").addEventListener("change", () => { if (dropped) sendFile(); else if (drawn) sendDrawing(); else showCurl(); });
$("model").addEventListener("change", (event) => {
  card = cards.find((c) => `${c.name} ${c.version}` === event.target.value);
  choose();
  showCard();
});
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch { // no clipboard without HTTPS: select the text instead
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Press Ctrl+C";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("fastconv-token", token);
  refresh();
});
setInterval(() => { if (!document.hidden) refresh(); }, 5000);
refresh();
