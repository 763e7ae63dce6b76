//! Macros that access the fields of a program's context.
//!
//! The verifier requires that each field is read or written whole, at a constant offset from the
//! context. Volatile access keeps the compiler from merging two accesses and from selecting an address
//! at run time.

/// Reads a field of a context.
#[macro_export]
macro_rules! read_field {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs.
        unsafe { core::ptr::read_volatile(&raw const (*$context).$($field)+) }
    };
}

/// Writes a field of a context. The verifier rejects fields that the hook may not write.
#[macro_export]
macro_rules! write_field {
    ($context:expr, $($field:ident)+ $([$index:literal])? = $value:expr) => {
        // SAFETY: the context is valid while the program runs.
        unsafe { core::ptr::write_volatile(&raw mut (*$context).$($field)+ $([$index])?, $value) }
    };
}

/// Reads the four words of an IPv6 address of a context, in network order.
#[macro_export]
macro_rules! read_v6 {
    ($context:expr, $field:ident) => {
        [
            $crate::read_field!($context, $field[0]),
            $crate::read_field!($context, $field[1]),
            $crate::read_field!($context, $field[2]),
            $crate::read_field!($context, $field[3]),
        ]
    };
}
