// Photographs: read their pixels, and draw boxes on them.

import { above } from "./detector.mjs";

const COLOURS = ["#d55e00", "#56b4e9", "#f0e442", "#009e73", "#cc79a7", "#e69f00"];
const SVG = "http://www.w3.org/2000/svg";
const LINES_PER_SIDE = 48;
const LOWEST_LETTERS_PX = 11;
const MAX_SAVED_PIXELS = 40e6;

// Open a photograph, turned upright as its EXIF data says.
//
// Returns {imageWh, readRows, close}: see fitImage. Transparent pixels are white.
// Throws an Error whose message names the reason.
export async function openPhoto(file) {
  const bitmap = await decode(file);
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const readRows = (start, count) => {
    canvas.height = count; // which also clears it
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, start, width, count, 0, 0, width, count);
    return context.getImageData(0, 0, width, count).data;
  };
  return { imageWh: [width, height], readRows, close: () => bitmap.close() };
}

async function decode(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    if (/hei[cf]$/i.test(file.type) || /\.hei[cf]$/i.test(file.name)) {
      throw new Error("this browser cannot read HEIC photographs; convert it to JPEG");
    }
    throw new Error("this browser cannot read it: not an image, damaged, or too large");
  }
}

// Return an SVG image of boxes, which is as large as the photograph below it.
export function drawBoxes(svg, { width, height, detections }, threshold) {
  const pixelsPerScreenPixel = width / (svg.clientWidth || width);
  const letters = Math.max(
    Math.max(width, height) / LINES_PER_SIDE,
    LOWEST_LETTERS_PX * pixelsPerScreenPixel,
  );
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const marks = above(detections, threshold).reverse(); // the most confident on top
  svg.replaceChildren(...marks.map((detection) => mark(detection, letters, width)));
}

function mark({ class: name, class_id: classId, confidence, xyxy }, letters, width) {
  const [left, top, right, bottom] = xyxy;
  const colour = COLOURS[classId % COLOURS.length];
  const box = element("rect", { x: left, y: top, width: right - left, height: bottom - top });
  box.setAttribute("stroke", colour);
  box.setAttribute("stroke-width", letters / 6);
  const text = `${name} ${confidence.toFixed(2)}`;
  const labelWidth = letters * (0.62 * text.length + 0.6);
  const x = Math.max(0, Math.min(left, width - labelWidth));
  const y = Math.max(0, top - 1.4 * letters);
  const label = element("rect", { x, y, width: labelWidth, height: 1.4 * letters, fill: colour });
  const words = element("text", { x: x + 0.3 * letters, y: y + letters, "font-size": letters });
  words.textContent = text;
  const group = element("g", {});
  group.append(box, label, words);
  return group;
}

function element(name, attributes) {
  const result = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    result.setAttribute(key, value);
  }
  return result;
}

// Return a JPEG of a photograph with its boxes, in its own size as far as memory allows.
export async function renderPicture(file, svg, { width, height }) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, Math.sqrt(MAX_SAVED_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  context.scale(scale, scale);
  for (const group of svg.children) {
    drawMark(context, group);
  }
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

function drawMark(context, group) {
  const [box, label, words] = group.children;
  const numberOf = (node, name) => Number(node.getAttribute(name));
  const frameOf = (node) => ["x", "y", "width", "height"].map((name) => numberOf(node, name));
  context.strokeStyle = box.getAttribute("stroke");
  context.lineWidth = numberOf(box, "stroke-width");
  context.strokeRect(...frameOf(box));
  context.fillStyle = label.getAttribute("fill");
  context.fillRect(...frameOf(label));
  context.fillStyle = "#000";
  context.font = `${numberOf(words, "font-size")}px monospace`;
  context.fillText(words.textContent, numberOf(words, "x"), numberOf(words, "y"));
}
