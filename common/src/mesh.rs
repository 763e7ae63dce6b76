/// What the connect hook does with a pod's connect to a destination. `MESH` has the class of each prefix,
/// and the longest one counts.
///
/// A destination without an entry is outside the mesh, and the connect goes on.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum MeshClass {
    /// The connect is redirected to the proxy. The destination is an opted-in pod, a Service with an
    /// opted-in endpoint, or an address in the mesh's ranges that the model does not know.
    Proxy = 1,
    /// The connect goes on. The destination is a pod or Service that its objects do not opt in.
    NotOptedIn = 2,
    /// The connect goes on. The destination is in a part of the mesh's ranges that is excluded.
    Outside = 3,
}

impl MeshClass {
    /// Returns the class of a map value. `None` means an unknown value, which callers must treat as
    /// [`MeshClass::Proxy`].
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

/// The prefix length of a single address in `MESH`.
pub const MESH_PREFIX_BITS: u32 = 128;
