// Frames to pictures, by what the browser has: WebCodecs for H.264, its image decoder for JPEG.

/**
 * @typedef {object} Decoder
 * @property {(chunk: number, k: number, bytes: Uint8Array) => void} decode frames of a chunk come in order
 * @property {() => void} reset forget what has not come out
 * @property {() => void} close
 *
 * @typedef {object} Sink
 * @property {(chunk: number, k: number, picture: ImageBitmap) => void} onpicture
 * @property {(reason: Error) => void} onerror
 */

const MICROSECONDS = 1000; // between timestamps, which only number the frames

/** Over plain HTTP from another machine browsers have no WebCodecs. */
export const hasVideoDecoder = () => 'VideoDecoder' in globalThis;

/**
 * @param {{codec: string, width: number, height: number}} format
 * @param {Sink} sink
 * @returns {Decoder}
 */
export function createDecoder(format, sink) {
  /** @type {VideoDecoder | null} */
  let video = null;
  /** @type {Map<number, {chunk: number, k: number}>} */
  const asked = new Map();
  let count = 0;

  function configured() {
    if (video && video.state !== 'closed') return video;
    video = new VideoDecoder({ output, error: sink.onerror });
    video.configure({
      codec: format.codec,
      codedWidth: format.width,
      codedHeight: format.height,
      optimizeForLatency: true,
    });
    return video;
  }

  /** @param {VideoFrame} frame */
  async function output(frame) {
    const number = frame.timestamp / MICROSECONDS;
    const place = asked.get(number);
    asked.delete(number);
    // A copy, so that the decoder has its few buffers back at once.
    const picture = await createImageBitmap(frame);
    frame.close();
    if (place) sink.onpicture(place.chunk, place.k, picture);
    else picture.close();
  }

  /**
   * @param {number} chunk
   * @param {number} k
   * @param {Uint8Array} bytes
   */
  async function decodeJpeg(chunk, k, bytes) {
    const blob = new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (bytes)], { type: 'image/jpeg' });
    sink.onpicture(chunk, k, await createImageBitmap(blob));
  }

  return {
    decode(chunk, k, bytes) {
      if (bytes[0] === 0xff && bytes[1] === 0xd8) return void decodeJpeg(chunk, k, bytes).catch(sink.onerror);
      asked.set(count, { chunk, k });
      const timestamp = count++ * MICROSECONDS;
      configured().decode(new EncodedVideoChunk({ type: k === 0 ? 'key' : 'delta', timestamp, data: bytes }));
    },
    reset() {
      asked.clear();
      if (video && video.state !== 'closed') video.close();
      video = null;
    },
    close() {
      this.reset();
    },
  };
}
