// Which page the address means: home, or a take.

import { base, getJson } from '../api.js';
import * as state from '../state.js';
import { join, leave } from '../take.js';

/** Show what the address says. */
export async function route() {
  const id = new URLSearchParams(location.search).get('take');
  if (id === state.take.value?.id) return;
  if (!id) {
    leave();
    return refreshGallery();
  }
  try {
    await join(id);
  } catch (error) {
    leave();
    history.replaceState(null, '', base.pathname);
    state.complain(error);
    await refreshGallery();
  }
}

export async function refreshGallery() {
  try {
    state.gallery.value = (await getJson('/api/takes')).takes;
  } catch (error) {
    state.complain(error);
  }
}

/** @param {MouseEvent & {currentTarget: HTMLAnchorElement}} event a link to another page of ours */
export function openPage(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  state.notice.value = null;
  history.pushState(null, '', event.currentTarget.getAttribute('href'));
  void route();
}
