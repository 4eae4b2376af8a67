//! Memory for direct I/O: whole pages, aligned to a page.

use crate::limits::PAGE_BYTES;
use bytemuck::{Pod, Zeroable};
use std::ops::{Deref, DerefMut};

/// A page that was never written since its file was made and filled with zeros.
pub(crate) const PAGE_BLANK: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// One page, aligned as `O_DIRECT` wants it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// An owned run of whole, aligned pages. Dereferences to its bytes.
///
/// It moves into an operation and comes back with the completion, so that nothing else can touch the memory
/// while the kernel does.
#[derive(Clone, Default)]
pub struct IoBuf {
    pages: Vec<Page>,
}

impl IoBuf {
    /// A zeroed buffer of at least `bytes` bytes, rounded up to whole pages.
    pub fn zeroed(bytes: usize) -> Self {
        IoBuf { pages: bytemuck::allocation::zeroed_vec(bytes.div_ceil(PAGE_BYTES)) }
    }

    /// Shortens to `bytes`, rounded up to whole pages; the memory stays.
    pub fn truncate(&mut self, bytes: usize) {
        self.pages.truncate(bytes.div_ceil(PAGE_BYTES));
    }

    /// Grows or shrinks to `bytes`, rounded up to whole pages; new pages are zeroed.
    pub fn resize(&mut self, bytes: usize) {
        let pages = bytes.div_ceil(PAGE_BYTES);
        if self.pages.capacity() == 0 {
            self.pages = bytemuck::allocation::zeroed_vec(pages);
        } else {
            self.pages.resize(pages, Zeroable::zeroed());
        }
    }

    /// How many bytes it could hold without a new allocation.
    pub fn capacity(&self) -> usize {
        self.pages.capacity() * PAGE_BYTES
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.pages)
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.pages)
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len())
    }
}
