/// What the connect hooks do with a destination, by longest-prefix match over [`crate::Address`].
///
/// A destination without an entry lies outside the mesh and passes.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum MeshClass {
    /// To the proxy: an opted-in pod, a Service with such an endpoint, or an address of the mesh's
    /// ranges that the model does not know.
    Proxy = 1,
    /// Passes, counted: a pod or Service that its objects do not opt in.
    NotOptedIn = 2,
    /// Passes, counted as outside: an excluded part of the mesh's ranges.
    Outside = 3,
}

impl MeshClass {
    /// The class of a map value; `None` is no class of ours, to be treated as [`MeshClass::Proxy`].
    #[inline(always)]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Proxy),
            2 => Some(Self::NotOptedIn),
            3 => Some(Self::Outside),
            _ => None,
        }
    }
}

/// Bits of a whole address in the longest-prefix-match table.
pub const MESH_PREFIX_BITS: u32 = 128;
