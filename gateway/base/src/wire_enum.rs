//! Numbers of the wire.

/// Declares a number of the wire as a newtype with the names that the standard gives to some of its values.
///
/// A value without a name is a value too, so that parse followed by emit loses nothing.
///
/// ```
/// sallyport_base::wire_enum! {
///     /// IANA "ISAKMP Next Payload Types".
///     pub struct PayloadType(u8) { NONE = 0, SA = 1 }
/// }
/// assert_eq!(PayloadType::SA.name(), Some("SA"));
/// assert_eq!(PayloadType(200).to_string(), "200");
/// ```
#[macro_export]
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis struct $name:ident($repr:ty) { $($(#[$vmeta:meta])* $variant:ident = $value:expr),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name(pub $repr);

        #[allow(missing_docs)]
        impl $name {
            $($(#[$vmeta])* pub const $variant: Self = Self($value);)*

            /// The standard's name of the value, if it has one that this implementation knows.
            pub const fn name(self) -> Option<&'static str> {
                #[allow(unreachable_patterns)]
                match self.0 {
                    $($value => Some(stringify!($variant)),)*
                    _ => None,
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(self, f)
            }
        }
    };
}
