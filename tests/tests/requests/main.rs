//! Requests as attackers write them, through two nodes. The numbers are those of the cases that the
//! specification of policies lists: P for paths, H for hosts, R for headers, M for methods, J for
//! tokens, I for identity, T for transport.

mod ambiguous;
mod expected;
mod heads;
mod paths;
mod tokens;

use std::process::ExitCode;

use ambit_tests::{run_tests, tests};

use ambiguous::what_could_be_read_in_two_ways_is_refused;
use heads::{h_r_m_hosts_headers_and_methods, i_plaintext_is_judged_without_an_identity};
use paths::p_paths_are_judged_as_the_application_gets_them;
use tokens::j_tokens;

fn main() -> ExitCode {
    run_tests(tests![
        p_paths_are_judged_as_the_application_gets_them,
        h_r_m_hosts_headers_and_methods,
        i_plaintext_is_judged_without_an_identity,
        what_could_be_read_in_two_ways_is_refused,
        j_tokens,
    ])
}
