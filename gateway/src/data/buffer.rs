//! Buffers that are filled and emptied without an allocation.

/// A stretch of one of the [`Buffers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Which buffer.
    pub buffer: u16,
    /// Where it starts.
    pub start: u32,
    /// How long it is.
    pub len: u32,
}

impl Slice {
    /// Nothing.
    pub const EMPTY: Self = Self { buffer: 0, start: 0, len: 0 };
}

/// Several buffers of one size.
#[derive(Debug)]
pub struct Buffers {
    buffers: Vec<Box<[u8]>>,
}

impl Buffers {
    /// `n` buffers of `size` bytes.
    pub fn new(n: usize, size: usize) -> Self {
        Self { buffers: (0..n).map(|_| vec![0; size].into_boxed_slice()).collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// All of them, to be filled.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.buffers.iter_mut().map(|b| &mut **b)
    }

    /// The bytes at `slice`.
    #[inline]
    pub fn get(&self, slice: Slice) -> Option<&[u8]> {
        let start = slice.start as usize;
        self.buffers.get(usize::from(slice.buffer))?.get(start..start + slice.len as usize)
    }

    /// The bytes at `slice`.
    #[inline]
    pub fn get_mut(&mut self, slice: Slice) -> Option<&mut [u8]> {
        let start = slice.start as usize;
        self.buffers.get_mut(usize::from(slice.buffer))?.get_mut(start..start + slice.len as usize)
    }

    /// One whole buffer.
    #[inline]
    pub fn buffer_mut(&mut self, n: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(n).map(|b| &mut **b)
    }
}
