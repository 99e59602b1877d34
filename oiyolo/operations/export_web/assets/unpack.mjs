// Unpack what web_page/packing.py packed: bytes, in characters that a page in UTF-8 may contain.

// Return the bytes in a text: seven bits in each character, the first in the highest bit.
//
// Characters that HTML does not keep (0, carriage return, "<") are written with 256 added.
export function textToBytes(text, byteCount) {
  const bytes = new Uint8Array(byteCount);
  let bits = 0;
  let count = 0;
  let index = 0;
  for (let i = 0; i < text.length && index < byteCount; i += 1) {
    bits = ((bits << 7) | (text.charCodeAt(i) & 127)) & 0x7fff;
    count += 7;
    if (count >= 8) {
      count -= 8;
      bytes[index] = (bits >> count) & 255;
      index += 1;
    }
  }
  if (index < byteCount) {
    throw new Error(`expected ${byteCount} bytes, found ${index}: the page is incomplete`);
  }
  return bytes;
}

// Return the bytes in their order before they were sorted by their position in each number.
export function interleave(bytes, width) {
  if (width === 1) {
    return bytes;
  }
  const rows = Math.floor(bytes.length / width);
  const result = new Uint8Array(bytes.length);
  for (let column = 0; column < width; column += 1) {
    const start = column * rows;
    for (let row = 0; row < rows; row += 1) {
      result[row * width + column] = bytes[start + row];
    }
  }
  result.set(bytes.subarray(rows * width), rows * width);
  return result;
}

// Return the decompressed bytes of a gzip file.
export async function gunzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Return a packed file: {text, bytes: size of the gzip file, width: bytes of a number}.
export async function unpack({ text, bytes, width }) {
  return interleave(await gunzip(textToBytes(text, bytes)), width);
}
