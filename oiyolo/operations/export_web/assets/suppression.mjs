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
      const reported = own.map((score) => (score > limit ? score : 0));
      candidates.push({ ...measured(cxcywh, unitWh), scores: reported });
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
        nmsIou > 0 && remaining.some((better) => overlap(better, box, kind, beta) > nmsIou);
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

// Return a box with what its overlap is computed from, in the units of unitWh.
function measured(cxcywh, [unitW, unitH]) {
  const [x, y, width, height] = [
    cxcywh[0] * unitW,
    cxcywh[1] * unitH,
    cxcywh[2] * unitW,
    cxcywh[3] * unitH,
  ];
  return {
    cxcywh,
    x,
    y,
    left: x - width / 2,
    top: y - height / 2,
    right: x + width / 2,
    bottom: y + height / 2,
    area: width * height,
  };
}

// Return how much two boxes overlap: IoU, less the term for their distance.
function overlap(one, other, kind, beta) {
  const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
  const height = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
  if (width <= 0 || height <= 0) {
    return 0;
  }
  const shared = width * height;
  const iou = shared / (one.area + other.area - shared);
  return kind === "diou" ? iou - distanceTerm(one, other, beta) : iou;
}

// Return the squared distance of the centres, relative to the rectangle around both boxes.
function distanceTerm(one, other, beta) {
  const width = Math.max(one.right, other.right) - Math.min(one.left, other.left);
  const height = Math.max(one.bottom, other.bottom) - Math.min(one.top, other.top);
  const distance = (one.x - other.x) ** 2 + (one.y - other.y) ** 2;
  return (distance / (width ** 2 + height ** 2)) ** beta;
}
