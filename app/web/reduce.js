// Large pictures, reduced before they are compared: a photo would be uploaded again for all words that one types.

const BYTES = 1_000_000; // files up to this size are sent as they are
const SIDE = 1024; // pixels
const QUALITY = 0.9;

/** @type {WeakMap<File, Promise<File>>} */
const reduced = new WeakMap();

/** A smaller copy of a large picture, made once; any other value as it is. @param {File | string} value */
export async function reducedOf(value) {
  if (!(value instanceof File) || value.size <= BYTES) return value;
  if (!reduced.has(value)) reduced.set(value, reduce(value));
  return reduced.get(value);
}

/** @param {File} file */
async function reduce(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file; // a format that this browser does not show; the service may read it all the same
  }
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(scale * bitmap.width)), Math.max(1, Math.round(scale * bitmap.height)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const copy = await canvas.convertToBlob({ type: "image/webp", quality: QUALITY }); // PNG where the browser writes no WebP
  return copy.size < file.size ? new File([copy], file.name, { type: copy.type }) : file;
}
