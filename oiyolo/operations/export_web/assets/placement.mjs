// Fit images to a network's input as darknet does, and convert its boxes back.
//
// The same arithmetic as in oiyolo/inference/placement.py, which names darknet's functions.

const GREY = 0.5;
const LEVELS = 255;
const ROWS_AT_ONCE = 128;
const f32 = Math.fround;

// Return the [width, height] in pixels to which an image is resized for the input.
export function placedWh([imageW, imageH], [width, height], fit) {
  if (fit === "stretch") {
    return [width, height];
  }
  if (f32(f32(width) / f32(imageW)) < f32(f32(height) / f32(imageH))) {
    return [width, Math.max(1, Math.floor((imageH * width) / imageW))];
  }
  return [Math.max(1, Math.floor((imageW * height) / imageH)), height];
}

// Return the [width, height] of the whole input, borders included, in pixels of the image.
export function unitWh(imageWh, sizeWh, fit) {
  const placed = placedWh(imageWh, sizeWh, fit);
  return [0, 1].map((axis) => (imageWh[axis] * sizeWh[axis]) / placed[axis]);
}

// Return [left, top, right, bottom] in pixels of the image, clipped to it, of a box of the input.
//
// cxcywh: centre and size as fractions of the input.
export function toImage(cxcywh, imageWh, sizeWh, fit) {
  const unit = unitWh(imageWh, sizeWh, fit);
  const sides = [0, 1].map((axis) => {
    const centre = cxcywh[axis] * unit[axis] - (unit[axis] - imageWh[axis]) / 2;
    const half = (cxcywh[axis + 2] * unit[axis]) / 2;
    return [centre - half, centre + half].map((v) => Math.min(Math.max(v, 0), imageWh[axis]));
  });
  return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]];
}

// Return the two source pixels of every target pixel on an axis, and their weights.
function axisOf(sourcePx, targetPx) {
  const scale = f32(f32(sourcePx - 1) / f32(Math.max(1, targetPx - 1)));
  const low = new Int32Array(targetPx);
  const high = new Int32Array(targetPx);
  const lowWeight = new Float32Array(targetPx);
  const highWeight = new Float32Array(targetPx);
  for (let i = 0; i < targetPx; i += 1) {
    const position = f32(i * scale);
    low[i] = Math.min(Math.floor(position), sourcePx - 1);
    high[i] = Math.min(low[i] + 1, sourcePx - 1);
    highWeight[i] = position - low[i];
    lowWeight[i] = 1 - highWeight[i];
  }
  return { low, high, lowWeight, highWeight };
}

// Return an image as a network's input: planes of red, green and blue from 0 to 1.
//
// imageWh: width and height of the image in pixels.
// readRows: returns the RGBA bytes of some rows, given the first one and their number.
// sizeWh: width and height of the input in pixels.
export function fitImage(imageWh, readRows, sizeWh, fit) {
  const [inputW, inputH] = sizeWh;
  const [width, height] = placedWh(imageWh, sizeWh, fit);
  const left = Math.floor((inputW - width) / 2);
  const top = Math.floor((inputH - height) / 2);
  const planes = new Float32Array(3 * inputW * inputH).fill(GREY);
  const x = axisOf(imageWh[0], width);
  const y = axisOf(imageWh[1], height);
  x.low[width - 1] = imageWh[0] - 1; // whatever rounding makes of it
  y.highWeight[height - 1] = 0; // darknet omits this term from its last row
  const rowAt = rowReader(imageWh, readRows);
  const low = new Float32Array(3 * width);
  const high = new Float32Array(3 * width);
  for (let row = 0; row < height; row += 1) {
    mixColumns(rowAt(y.low[row]), x, low);
    mixColumns(rowAt(y.high[row]), x, high);
    const lowWeight = y.lowWeight[row] / LEVELS;
    const highWeight = y.highWeight[row] / LEVELS;
    for (let channel = 0; channel < 3; channel += 1) {
      const start = (channel * inputH + top + row) * inputW + left;
      for (let column = 0; column < width; column += 1) {
        const index = channel * width + column;
        planes[start + column] = low[index] * lowWeight + high[index] * highWeight;
      }
    }
  }
  return planes;
}

// Return a function that returns the RGBA bytes of a row; it keeps some rows in memory.
function rowReader([width, height], readRows) {
  let start = 0;
  let end = 0;
  let bytes = null;
  return (row) => {
    if (row < start || row >= end) {
      start = Math.max(0, row - 1); // a target pixel needs two rows that follow each other
      end = Math.min(height, start + ROWS_AT_ONCE);
      bytes = readRows(start, end - start);
    }
    return bytes.subarray(4 * width * (row - start), 4 * width * (row - start + 1));
  };
}

// Write a row, resized to the target's columns, to planes of red, green and blue.
function mixColumns(rgba, x, out) {
  const width = x.low.length;
  for (let column = 0; column < width; column += 1) {
    const low = 4 * x.low[column];
    const high = 4 * x.high[column];
    for (let channel = 0; channel < 3; channel += 1) {
      const first = rgba[low + channel];
      out[channel * width + column] = first + (rgba[high + channel] - first) * x.highWeight[column];
    }
  }
}
