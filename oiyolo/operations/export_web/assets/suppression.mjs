// Non-maximum suppression by darknet's rules.
//
// The same rules as in oiyolo/inference/suppression.py, which names darknet's functions.

// Return the detections of an image, by falling confidence: [{classId, confidence, cxcywh}].
//
// boxes: centres and sizes of all boxes as fractions of the input, four numbers each.
// scores: score of each box in each class.
// threshold: score that a detection exceeds.
// nmsIou: overlap above which the less confident of two boxes of a class is removed; 0: none.
// kind: "greedy" compares IoU, "diou" subtracts a term for the distance of the centres.
// beta: exponent of that term.
// unitWh: factors to the units in which distances are measured.
export function suppress(boxes, scores, { threshold, nmsIou, kind, beta, unitWh }) {
  const boxCount = boxes.length / 4;
  const classCount = scores.length / boxCount;
  const limit = Math.fround(threshold);
  const candidates = [];
  for (let box = 0; box < boxCount; box += 1) {
    const own = scores.subarray(box * classCount, (box + 1) * classCount);
    if (own.some((score) => score > limit)) {
      const cxcywh = Array.from(boxes.subarray(4 * box, 4 * box + 4));
      const scaled = cxcywh.map((value, side) => value * unitWh[side % 2]);
      candidates.push({ cxcywh, scaled, scores: own.map((s) => (s > limit ? s : 0)) });
    }
  }
  const kept = [];
  for (let classId = 0; classId < classCount; classId += 1) {
    // Darknet sorts one array for class after class, so boxes of equal score keep their order.
    candidates.sort((one, other) => other.scores[classId] - one.scores[classId]);
    const remaining = [];
    for (const box of candidates) {
      if (box.scores[classId] === 0) {
        break;
      }
      const isRepeat =
        nmsIou > 0 &&
        remaining.some((better) => overlap(better.scaled, box.scaled, kind, beta) > nmsIou);
      if (!isRepeat) {
        remaining.push(box);
      }
    }
    for (const { cxcywh, scores: own } of remaining) {
      kept.push({ classId, confidence: own[classId], cxcywh });
    }
  }
  return kept.sort((one, other) => other.confidence - one.confidence);
}

// Return how much two boxes overlap: IoU, less the term for their distance.
function overlap(one, other, kind, beta) {
  const low = [0, 1].map((a) => Math.max(one[a] - one[a + 2] / 2, other[a] - other[a + 2] / 2));
  const high = [0, 1].map((a) => Math.min(one[a] + one[a + 2] / 2, other[a] + other[a + 2] / 2));
  const shared = Math.max(high[0] - low[0], 0) * Math.max(high[1] - low[1], 0);
  if (shared === 0) {
    return 0;
  }
  const iou = shared / (one[2] * one[3] + other[2] * other[3] - shared);
  return kind === "diou" ? iou - distanceTerm(one, other, beta) : iou;
}

// Return the squared distance of the centres, relative to the rectangle around both boxes.
function distanceTerm(one, other, beta) {
  let distance = 0;
  let diagonal = 0;
  for (const axis of [0, 1]) {
    const start = Math.min(one[axis] - one[axis + 2] / 2, other[axis] - other[axis + 2] / 2);
    const end = Math.max(one[axis] + one[axis + 2] / 2, other[axis] + other[axis + 2] / 2);
    distance += (one[axis] - other[axis]) ** 2;
    diagonal += (end - start) ** 2;
  }
  return (distance / diagonal) ** beta;
}
