// The page: takes photographs, shows their boxes, and saves them.

import { above, countObjects, Detector, lowestThreshold, toJson } from "./detector.mjs";
import { drawBoxes, openPhoto, renderPicture } from "./picture.mjs";
import { unpack } from "./unpack.mjs";

// A WebAssembly module with one SIMD instruction; browsers without SIMD refuse it.
const SIMD_PROBE = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
];

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId("facts").textContent);
const photos = [];
let detector = null;
let working = Promise.resolve();

// Start the runtime and the network, with a progress bar.
async function start() {
  const missing = missingFeature();
  if (missing) {
    say(`This browser lacks ${missing}. Use a current Chrome, Edge, Firefox or Safari.`);
    byId("progress").hidden = true;
    return;
  }
  try {
    detector = new Detector(await openNetwork(), facts);
  } catch (error) {
    say(`The detector does not start: ${error.message}`);
    return;
  } finally {
    byId("progress").hidden = true;
  }
  say("");
  document.body.dataset.state = "ready";
}

function missingFeature() {
  if (typeof DecompressionStream === "undefined") {
    return "DecompressionStream";
  }
  if (typeof WebAssembly === "undefined") {
    return "WebAssembly";
  }
  return WebAssembly.validate(new Uint8Array(SIMD_PROBE)) ? "" : "WebAssembly SIMD";
}

// Return the function that runs the network on one image.
async function openNetwork() {
  await progress("Unpacking the runtime", 0);
  const script = new Blob([await packed("runtime-script")], { type: "text/javascript" });
  const url = URL.createObjectURL(script);
  const ort = await import(url);
  URL.revokeObjectURL(url);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1; // more need cross-origin isolation, which a file does not have
  ort.env.wasm.wasmBinary = (await packed("runtime-wasm")).buffer;
  await progress("Unpacking the network", 0.4);
  const model = await packed("model");
  await progress("Starting the network", 0.7);
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  const [width, height] = facts.size_wh;
  return async (planes) => {
    const input = new ort.Tensor("float32", planes, [1, 3, height, width]);
    const outputs = await session.run({ [session.inputNames[0]]: input });
    return { boxes: outputs.boxes.data, scores: outputs.scores.data };
  };
}

async function packed(id) {
  const element = byId(id);
  const { bytes, width } = element.dataset;
  const text = element.textContent;
  element.remove(); // its memory
  return unpack({ text, bytes: Number(bytes), width: Number(width) });
}

async function progress(text, share) {
  say(text);
  byId("progress").value = share;
  await painted();
}

// Wait until the browser has drawn what changed.
function painted() {
  return new Promise((resolve) => setTimeout(resolve, 20));
}

function say(text) {
  byId("status").textContent = text;
}

// Detect objects in files, one after another.
function add(files) {
  for (const file of files) {
    const photo = newPhoto(file);
    photos.push(photo);
    working = working.then(() => process(photo));
  }
  byId("controls").hidden = photos.length === 0;
}

function newPhoto(file) {
  const item = byId("photo").content.firstElementChild.cloneNode(true);
  const name = file.name || "pasted image";
  item.querySelector(".name").textContent = name;
  item.querySelector(".summary").textContent = "waiting";
  byId("photos").append(item);
  return { file, name, item, width: 0, height: 0, detections: [] };
}

async function process(photo) {
  await started;
  const summary = photo.item.querySelector(".summary");
  if (detector === null) {
    fail(photo, "the detector did not start");
    return;
  }
  summary.textContent = "looking";
  await painted();
  try {
    const image = await openPhoto(photo.file);
    try {
      [photo.width, photo.height] = image.imageWh;
      photo.detections = await detector.detect(image, lowestThreshold(facts));
    } finally {
      image.close();
    }
    showPicture(photo);
    show(photo);
  } catch (error) {
    fail(photo, error.message);
  }
}

function fail(photo, reason) {
  photo.error = reason;
  photo.item.classList.add("failed");
  photo.item.querySelector(".summary").textContent = reason;
}

function showPicture(photo) {
  const image = photo.item.querySelector("img");
  image.src = URL.createObjectURL(photo.file);
  image.alt = photo.name;
  image.width = photo.width;
  image.height = photo.height;
  photo.item.querySelector(".picture").hidden = false;
  const save = photo.item.querySelector("button");
  save.hidden = false;
  save.addEventListener("click", () => savePicture(photo));
}

function show(photo) {
  const found = above(photo.detections, threshold());
  photo.item.querySelector(".summary").textContent = countObjects(found);
  drawBoxes(photo.item.querySelector("svg"), photo, threshold());
  const rows = found.map(({ class: name, confidence, xyxy }) =>
    tableRow([name, confidence.toFixed(2), ...xyxy.map((value) => String(Math.round(value)))]),
  );
  photo.item.querySelector("tbody").replaceChildren(...rows);
  photo.item.querySelector("details").hidden = rows.length === 0;
}

function tableRow(texts) {
  const row = document.createElement("tr");
  for (const text of texts) {
    row.append(Object.assign(document.createElement("td"), { textContent: text }));
  }
  return row;
}

function threshold() {
  return Number(byId("threshold").value);
}

function showThreshold() {
  byId("threshold-value").textContent = threshold().toFixed(2);
  for (const photo of photos) {
    if (photo.width && photo.error === undefined) {
      show(photo);
    }
  }
}

async function savePicture(photo) {
  const svg = photo.item.querySelector("svg");
  const stem = photo.name.replace(/\.[^.]*$/, "");
  save(await renderPicture(photo.file, svg, photo), `${stem}-detected.jpg`);
}

function saveJson() {
  const text = JSON.stringify(toJson(photos, threshold()), null, 1);
  save(new Blob([text], { type: "application/json" }), "predictions.json");
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function listen() {
  const input = byId("files");
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // the same file may be chosen again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
  byId("threshold").addEventListener("input", showThreshold);
  byId("save-json").addEventListener("click", saveJson);
}

listen();
showThreshold();
const started = start();
