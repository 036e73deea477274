// Icons as paths on a 24-pixel grid. They are decoration: what they sit on has a name.

import { html } from './html.js';

const PATHS = {
  play: 'M8 5.5v13l10.5-6.5z',
  pause: 'M8 5.5v13M16 5.5v13',
  start: 'M6 5.5v13M18.5 6v12L9.5 12z',
  previous: 'M15 6l-6 6 6 6',
  next: 'M9 6l6 6-6 6',
  send: 'M12 19V5.5M6 11l6-6 6 6',
  branch:
    'M7 4.5v15M7 14c0-4 10-3 10-7.5M7 4.5a0 0 0 1 1 0 0M17 6.5a2 2 0 1 0 0-.1M7 21a2 2 0 1 0 0-.1M7 5a2 2 0 1 0 0-.1',
  close: 'M6.5 6.5l11 11M17.5 6.5l-11 11',
  check: 'M5.5 12.5l4.5 4.5 9-10',
  clock: 'M12 7v5l3.5 2M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17z',
  save: 'M12 4.5v10.5M7.5 11l4.5 4.5 4.5-4.5M5 19.5h14',
  compare: 'M4 6h7v12H4zM13 6h7v12h-7z',
  star: 'M12 4.5l2.3 4.9 5.2.7-3.8 3.7.9 5.3-4.6-2.6-4.6 2.6.9-5.3-3.8-3.7 5.2-.7z',
  plus: 'M12 5.5v13M5.5 12h13',
  image: 'M4 5.5h16v13H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5a.6.6 0 1 0 0-.1',
  webcam: 'M12 16a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM12 12a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM7 20h10',
  canvas: 'M5 19l1-4L16.5 4.5l3 3L9 18zM14 7l3 3',
  video: 'M4 6h11v12H4zM15 10.5l5-3v9l-5-3',
  game:
    'M8 9v5M5.5 11.5h5M15.5 10.5v.1M18 13v.1' +
    'M6.5 6.5h11a4 4 0 0 1 4 4.5l-.7 5a2.3 2.3 0 0 1-4 1L14.5 15h-5l-2.3 2a2.3 2.3 0 0 1-4-1l-.7-5a4 4 0 0 1 4-4.5z',
  text: 'M5 6.5h14M12 6.5v12M9.5 18.5h5',
  keyboard: 'M3.5 7h17v10.5h-17zM7 10.5v.1M10.5 10.5v.1M14 10.5v.1M17 10.5v.1M8 14.2h8',
  loop: 'M6 9.5h10.5a3 3 0 0 1 3 3v.5M9 6.5l-3 3 3 3M18 14.5H7.5a3 3 0 0 1-3-3V11M15 17.5l3-3-3-3',
  left: 'M18 12H6M11 7l-5 5 5 5',
  right: 'M6 12h12M13 7l5 5-5 5',
  up: 'M12 18V6M7 11l5-5 5 5',
  down: 'M12 6v12M7 13l5 5 5-5',
  camera: 'M4 7.5h4l1.5-2h5l1.5 2h4v11H4zM12 16a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4z',
  tune: 'M4 8h9M17 8h3M15 10a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM4 16h3M11 16h9M9 18a2 2 0 1 0 0-4 2 2 0 0 0 0 4z',
};

/** @param {{name: keyof typeof PATHS}} props */
export function Icon({ name }) {
  const solid = name === 'play' ? 'solid' : '';
  return html`<svg class="icon ${solid}" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}

export function Mark() {
  return html`<svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
    <rect x="2.5" y="8" width="27" height="16" rx="4" />
    <path d="M8.5 16h15" />
    <circle cx="23.5" cy="16" r="2.6" />
  </svg>`;
}
