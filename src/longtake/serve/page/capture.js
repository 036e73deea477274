// Pictures of a live source, cut to the size of the take and sent as the server has room for them. The newest win.

const QUALITY = 0.85;

export class Capture {
  /** Shows what is sent. */
  canvas = document.createElement('canvas');
  frozen = false;
  mirrored = false;
  #credit = 0;
  #busy = false;
  #source;
  #send;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /**
   * @param {HTMLVideoElement | HTMLCanvasElement} source
   * @param {{width: number, height: number}} size
   * @param {(picture: Blob) => boolean} send
   */
  constructor(source, { width, height }, send) {
    this.#source = source;
    this.#send = send;
    Object.assign(this.canvas, { width, height });
  }

  /** @param {number} fps */
  start(fps) {
    this.#timer = setInterval(() => this.#take(), 1000 / fps);
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** @param {number} frames that the server can take now */
  grant(frames) {
    this.#credit += frames;
  }

  /** A new line to the server begins without credit. */
  reset() {
    this.#credit = 0;
  }

  #take() {
    if (!this.frozen) this.#draw();
    if (this.#credit <= 0 || this.#busy) return;
    this.#busy = true;
    this.canvas.toBlob((blob) => this.#sent(blob), 'image/jpeg', QUALITY);
  }

  /** @param {Blob | null} blob */
  #sent(blob) {
    this.#busy = false;
    if (blob && this.#send(blob)) this.#credit -= 1;
  }

  #draw() {
    const { canvas, mirrored } = this;
    const source = this.#source;
    const width = source instanceof HTMLVideoElement ? source.videoWidth : source.width;
    const height = source instanceof HTMLVideoElement ? source.videoHeight : source.height;
    if (!width || !height) return;
    const scale = Math.max(canvas.width / width, canvas.height / height);
    const [w, h] = [canvas.width / scale, canvas.height / scale];
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    context.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? canvas.width : 0, 0);
    context.drawImage(source, (width - w) / 2, (height - h) / 2, w, h, 0, 0, canvas.width, canvas.height);
  }
}
