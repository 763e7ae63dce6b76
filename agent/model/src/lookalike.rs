//! Names of headers that servers take for the same one.

/// A header's name as CGI and WSGI make a variable of it, but in lower case and with `-` for every
/// other character. Two headers whose names fold to the same text may be one header to an application:
/// all servers of this kind fold `-` and `_`, and some every character that is not a letter or digit.
pub fn folded(name: &str) -> String {
    let fold = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte.to_ascii_lowercase()),
        false => '-',
    };
    name.bytes().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_make_one_variable_fold_to_the_same() {
        for name in [
            "X-Auth-User",
            "x_auth_user",
            "x-auth_user",
            "X.Auth.User",
            "x!auth~user",
        ] {
            assert_eq!(folded(name), "x-auth-user", "{name}");
        }
        assert_ne!(folded("xauth-user"), folded("x-auth-user"));
    }
}
