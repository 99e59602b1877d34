// A detector: a network, and what is known about it (oiyolo/inference/facts.py).

import { fitImage, toImage, unitWh } from "./placement.mjs";
import { suppress } from "./suppression.mjs";

const CONFIDENCE_DECIMALS = 6;
const PIXEL_DECIMALS = 2;

// Return the largest of the thresholds at which all detections are found that may be shown.
export function lowestThreshold(facts) {
  return Math.min(0.05, facts.threshold);
}

export class Detector {
  // run: returns {boxes, scores} of one image, given its planes (see fitImage).
  // facts: names, size_wh, fit, threshold, nms_kind, nms_iou, nms_beta.
  constructor(run, facts) {
    this.run = run;
    this.facts = facts;
  }

  // Return the detections in an image, by falling confidence.
  //
  // image: {imageWh, readRows}, as for fitImage.
  // threshold: confidence that a detection exceeds.
  async detect({ imageWh, readRows }, threshold) {
    const { size_wh: sizeWh, fit, names } = this.facts;
    const { boxes, scores } = await this.run(fitImage(imageWh, readRows, sizeWh, fit));
    const kept = suppress(boxes, scores, {
      threshold,
      nmsIou: this.facts.nms_iou,
      kind: this.facts.nms_kind,
      beta: this.facts.nms_beta,
      unitWh: unitWh(imageWh, sizeWh, fit),
    });
    const detections = kept.map(({ classId, confidence, cxcywh }) => ({
      class: names[classId],
      class_id: classId,
      confidence,
      xyxy: toImage(cxcywh, imageWh, sizeWh, fit),
    }));
    // A box may be entirely in the border of a letterbox.
    return detections.filter(({ xyxy }) => xyxy[2] > xyxy[0] && xyxy[3] > xyxy[1]);
  }
}

// Return the detections above a threshold.
export function above(detections, threshold) {
  const limit = Math.fround(threshold);
  return detections.filter(({ confidence }) => confidence > limit);
}

// Return what `oiyolo predict --json` prints.
//
// photos: [{name, width, height, detections}], or with an error instead of the detections.
export function toJson(photos, threshold) {
  const images = [];
  const failed = {};
  for (const { name, width, height, detections, error } of photos) {
    if (error !== undefined) {
      failed[name] = error;
    } else {
      images.push({
        source: name,
        width,
        height,
        detections: above(detections, threshold).map((detection) => ({
          ...detection,
          confidence: rounded(detection.confidence, CONFIDENCE_DECIMALS),
          xyxy: detection.xyxy.map((value) => rounded(value, PIXEL_DECIMALS)),
        })),
      });
    }
  }
  return { images, failed };
}

// Return how many objects of each class there are, in words.
export function countObjects(detections) {
  const counts = new Map();
  for (const { class: name } of detections) {
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const parts = [...counts].sort((one, other) => other[1] - one[1]);
  return parts.map(([name, count]) => `${count} ${name}`).join(", ") || "nothing found";
}

function rounded(value, decimals) {
  return Number(value.toFixed(decimals));
}
