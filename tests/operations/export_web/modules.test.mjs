// The page's modules compute what the Python implementation computes; test_modules.py writes cases.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const cases = JSON.parse(readFileSync(process.env.CASES, "utf8"));
const load = (name) => import(pathToFileURL(`${process.env.MODULES}/${name}.mjs`));
const bytesOf = (text) => new Uint8Array(Buffer.from(text, "base64"));
const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);

function assertClose(found, expected, tolerance, label) {
  assert.equal(found.length, expected.length, label);
  let worst = 0;
  for (let i = 0; i < found.length; i += 1) {
    worst = Math.max(worst, Math.abs(found[i] - expected[i]));
  }
  assert.ok(worst <= tolerance, `${label}: differs by ${worst}`);
}

test("packed files are unpacked", async () => {
  const { unpack } = await load("unpack");
  for (const { text, bytes, width, content } of cases.packed) {
    const found = await unpack({ text, bytes, width });
    assert.deepEqual(found, bytesOf(content));
  }
});

test("an incomplete file is an error", async () => {
  const { textToBytes } = await load("unpack");
  assert.throws(() => textToBytes("abc", 3), /incomplete/);
});

test("images are fitted to the input", async () => {
  const { fitImage } = await load("placement");
  for (const { image_wh: imageWh, rgba, size_wh: sizeWh, fit, planes } of cases.images) {
    const bytes = bytesOf(rgba);
    const rowBytes = 4 * imageWh[0];
    const readRows = (start, count) => bytes.subarray(start * rowBytes, (start + count) * rowBytes);
    const found = fitImage(imageWh, readRows, sizeWh, fit);
    assertClose(found, floatsOf(planes), 2e-6, `${imageWh} in ${sizeWh}, ${fit}`);
  }
});

test("boxes are converted to the image", async () => {
  const { toImage } = await load("placement");
  for (const { cxcywh, image_wh: imageWh, size_wh: sizeWh, fit, xyxy } of cases.boxes) {
    assertClose(toImage(cxcywh, imageWh, sizeWh, fit), xyxy, 1e-6, `${cxcywh}`);
  }
});

test("repeated boxes are suppressed", async () => {
  const { suppress } = await load("suppression");
  for (const { boxes, scores, options, kept } of cases.suppressed) {
    const found = suppress(floatsOf(boxes), floatsOf(scores), options);
    assert.deepEqual(
      found.map(({ classId }) => classId),
      kept.map(({ class_id: classId }) => classId),
    );
    found.forEach(({ confidence, cxcywh }, index) => {
      assert.equal(confidence, kept[index].confidence);
      assertClose(cxcywh, kept[index].cxcywh, 1e-7, "box");
    });
  }
});

test("detections have the form of predict --json", async () => {
  const { toJson } = await load("detector");
  const detection = { class: "Boat", class_id: 0, confidence: 0.51234567, xyxy: [0, 1.005, 2, 3] };
  const photos = [
    { name: "a.jpg", width: 4, height: 3, detections: [detection, { ...detection, confidence: 0.1 }] },
    { name: "b.txt", error: "not an image" },
  ];
  const { images, failed } = toJson(photos, 0.25);
  assert.deepEqual(failed, { "b.txt": "not an image" });
  assert.deepEqual(Object.keys(images[0]), ["source", "width", "height", "detections"]);
  assert.equal(images[0].detections.length, 1);
  assert.equal(images[0].detections[0].confidence, 0.512346);
});
