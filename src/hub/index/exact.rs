//! Boxed slices that grow and shrink by one element: a small collection costs two words and exactly what it holds.
//! Every change moves the slice, so callers keep them short.

/// Appends `item`.
pub(super) fn push<T>(slice: &mut Box<[T]>, item: T) {
    let mut items = std::mem::take(slice).into_vec();
    items.reserve_exact(1);
    items.push(item);
    *slice = items.into_boxed_slice();
}

/// Takes out the item at `place`; the last one fills its place.
///
/// # Panics
/// If `place` is out of bounds.
pub(super) fn swap_remove<T>(slice: &mut Box<[T]>, place: usize) -> T {
    let mut items = std::mem::take(slice).into_vec();
    let item = items.swap_remove(place);
    *slice = items.into_boxed_slice();
    item
}

/// Keeps the items for which `keep` says so.
pub(super) fn retain<T>(slice: &mut Box<[T]>, keep: impl FnMut(&mut T) -> bool) {
    let mut items = std::mem::take(slice).into_vec();
    items.retain_mut(keep);
    *slice = items.into_boxed_slice();
}
