//! The bounds of the listeners: connections, streams, and where the admin routes are mounted.

use super::{faults, read};

/// The settings of connections and streams that a text leaves, or what is wrong with it.
fn limits(text: &str) -> Result<(usize, usize), Vec<String>> {
    let body = format!("[runtime.web]\n{text}");
    read(&body).map(|it| (it.web.connections_max, it.web.streams_max)).map_err(|_problems| faults(&body))
}

#[test]
fn fewer_follow_than_may_be_connected_and_both_have_bounds() {
    for (text, wanted) in [
        ("", (2_048, 1_536)),
        ("connections_max = 16\nstreams_max = 15", (16, 15)),
        ("connections_max = 16\nstreams_max = 2", (16, 2)),
        ("connections_max = 2048\nstreams_max = 2047", (2_048, 2_047)),
    ] {
        assert_eq!(limits(text), Ok(wanted), "{text}");
    }
    for (text, wanted) in [
        (
            "connections_max = 15\nstreams_max = 2",
            "runtime.web.connections_max: wanted a whole number from 16 to 2048, got the number 15",
        ),
        (
            "connections_max = 2049",
            "runtime.web.connections_max: wanted a whole number from 16 to 2048, got the number 2049",
        ),
        ("streams_max = 1", "runtime.web.streams_max: wanted a whole number from 2 to 2047, got the number 1"),
        ("streams_max = 2048", "runtime.web.streams_max: wanted a whole number from 2 to 2047, got the number 2048"),
        ("streams_max = -1", "runtime.web.streams_max: wanted a whole number from 2 to 2047, got the number -1"),
        ("connections_max = 16\nstreams_max = 16", "runtime.web.streams_max: wanted fewer than connections_max, 16"),
        // Fewer connections alone leave the default of the streams above them.
        ("connections_max = 1536", "runtime.web.streams_max: wanted fewer than connections_max, 1536"),
    ] {
        let found = limits(text).expect_err(text);
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{text}: {found:?}");
    }
}

#[test]
fn each_credential_acts_and_reads_at_a_rate_that_is_set() {
    let rates = |text: &str| {
        let body = format!("[runtime.web]\n{text}");
        read(&body).map(|it| (it.web.acts_per_s, it.web.reads_per_s)).map_err(|_problems| faults(&body))
    };
    for (text, wanted) in [
        ("", (500, 2_000)),
        ("acts_per_s = 1\nreads_per_s = 10", (1, 10)),
        ("acts_per_s = 100000\nreads_per_s = 100000", (100_000, 100_000)),
    ] {
        assert_eq!(rates(text), Ok(wanted), "{text}");
    }
    for (text, wanted) in [
        ("acts_per_s = 0", "runtime.web.acts_per_s: wanted a whole number from 1 to 100000, got the number 0"),
        (
            "acts_per_s = 100001",
            "runtime.web.acts_per_s: wanted a whole number from 1 to 100000, got the number 100001",
        ),
        ("acts_per_s = -1", "runtime.web.acts_per_s: wanted a whole number from 1 to 100000, got the number -1"),
        ("reads_per_s = 9", "runtime.web.reads_per_s: wanted a whole number from 10 to 100000, got the number 9"),
        (
            "reads_per_s = 100001",
            "runtime.web.reads_per_s: wanted a whole number from 10 to 100000, got the number 100001",
        ),
        ("reads_per_s = \"many\"", "runtime.web.reads_per_s: wanted a whole number from 10 to 100000, got \"many\""),
    ] {
        let found = rates(text).expect_err(text);
        assert!(found.iter().any(|fault| fault.starts_with(wanted)), "{text}: {found:?}");
    }
}

#[test]
fn admin_routes_are_mounted_behind_plain_names_alone() {
    let mount = |path: &str| {
        let body = format!("[runtime.admin]\nmount = {path:?}");
        read(&body).map(|it| it.admin.mount).map_err(|_problems| faults(&body))
    };
    let longest = format!("/{}", "a".repeat(127));
    assert_eq!(read("").expect("valid").admin.mount, "", "nothing stands before them unless somebody says so");
    for path in ["/a", "/fleet/admin", "/v1.0", "/a-b_c.d/e", &longest] {
        assert_eq!(mount(path), Ok(path.to_owned()));
    }
    for path in [
        "",
        "/",
        "//",
        "/a/",
        "a",
        "a/b",
        "/a//b",
        "/.",
        "/..",
        "/a/../b",
        "/a b",
        "/a%2fb",
        "/ä",
        "/a?b",
        "/a#b",
        "/{a}",
        "/a\\b",
        "/*",
        " /a",
        "/a\n",
        &format!("{longest}a"),
    ] {
        let found = mount(path).expect_err(path);
        assert!(found.len() == 1 && found[0].starts_with("runtime.admin.mount: wanted a "), "{path:?}: {found:?}");
    }
}
