//! `[[runtime.mesh.partner]]`: what it asks of the other settings.

use super::*;

/// A router of site `north` that knows the anchors of two others, with these lines in its mesh section and after it.
fn router(mesh: &str, after: &str) -> String {
    format!(
        "[runtime.identity]\nsite = \"north\"\nsource = \"files\"\nsvid_path = \"a\"\nkey_path = \"b\"\n\
         anchors = [{{ site = \"north\", path = \"n\" }}, {{ site = \"south\", path = \"s\" }}, {{ site = \"east\", path = \"e\" }}]\n\
         [runtime.tls]\nmode = \"self-managed\"\n[runtime.mesh]\n{mesh}\n{after}"
    )
}

const MESH: &str = "role = \"router\"\nplugin_versions = { x = \"1.0.0\" }\ntls = true\nlisten = \"10.0.0.1:7447\"";

fn partner(body: &str) -> String {
    format!("[[runtime.mesh.partner]]\n{body}\n")
}

#[test]
fn a_partner_is_read_with_its_addresses() {
    let first = partner("site = \"south\"\nlisten = \"10.0.0.1:7448\"\nlinks_max = 2");
    let second = partner("site = \"east\"\nconnect = [\"gw.east:7448\", \"tls/10.9.0.1:1\"]");
    let settings = read(&router(MESH, &format!("{first}{second}"))).expect("valid");
    let [south, east] = settings.mesh.partners.as_slice() else { panic!("two partners") };
    assert_eq!(south.listen, Some("10.0.0.1:7448".parse().expect("an address")));
    assert_eq!((south.site.as_str(), south.links_max, south.connect.len()), ("south", 2, 0));
    let shown: Vec<_> = east.connect.iter().map(ToString::to_string).collect();
    assert_eq!((east.listen, east.links_max, shown), (None, 8, vec!["gw.east:7448".into(), "10.9.0.1:1".into()]));
}

/// Its anchors may come with its trust bundle.
#[test]
fn a_partner_may_be_known_by_its_bundle() {
    let link = partner("site = \"west\"\nlisten = \"10.0.0.1:7448\"");
    let found = faults(&router(MESH, &format!("{link}[[runtime.identity.partner]]\nsite = \"west\"\n")));
    assert!(found.is_empty(), "{found:#?}");
}

/// Or an agent knows them, where each site has a trust domain.
#[test]
fn a_partner_may_be_known_by_an_agent_where_each_site_has_a_trust_domain() {
    let link = partner("site = \"west\"\nlisten = \"10.0.0.1:7448\"");
    let by_agent = |mapping: &str, anchors: &str| {
        let identity = format!("site = \"north\"\nsource = \"spire\"\nmapping = {mapping:?}\n{anchors}");
        faults(&format!(
            "[runtime.identity]\n{identity}\n[runtime.tls]\nmode = \"self-managed\"\n[runtime.mesh]\n{MESH}\n{link}"
        ))
    };
    assert!(by_agent("domain-site", "").is_empty(), "{:#?}", by_agent("domain-site", ""));
    let [unknown] = by_agent("path-site", "").try_into().expect("one fault");
    assert!(unknown.contains("wanted a site of runtime.identity.anchors or .partner, got west"), "{unknown}");
    let own = by_agent("domain-site", "anchors = [{ site = \"north\", path = \"n\" }]");
    assert!(matches!(own.as_slice(), [own] if own.contains("the agent gives the own site's")), "{own:#?}");
}

#[test]
fn a_partner_that_cannot_be_linked_with_is_refused_by_name() {
    let dial = "connect = [\"a:1\"]";
    let key = "runtime.mesh.partner[0]";
    for (mesh, after, wanted) in [
        (
            MESH,
            partner("site = \"west\"\nconnect = [\"a:1\"]"),
            ".site: wanted a site of runtime.identity.anchors or .partner, got west",
        ),
        (MESH, partner("site = \"north\"\nconnect = [\"a:1\"]"), ".site: wanted another site"),
        (MESH, partner("site = \"south\""), ": wanted listen or connect for site south, got neither"),
        (MESH, partner("site = \"south\"\nconnect = []"), ": wanted listen or connect"),
        (MESH, partner(dial), ".site: wanted a name of at most 64"),
        (MESH, partner("site = \"south\"\nconnect = [\"tcp/a:1\"]"), ".connect: wanted tls because"),
        (
            MESH,
            partner("site = \"south\"\nlisten = \"10.0.0.1:7447\""),
            ".listen: 10.0.0.1:7447 is already taken by runtime.mesh.listen",
        ),
        (MESH, partner("site = \"south\"\nlisten = \"gw:1\""), ".listen: wanted an IP address and a port"),
        (
            MESH,
            partner("site = \"south\"\nconnect = [\"a:1\"]\nlinks_max = 0"),
            ".links_max: wanted a whole number from 1",
        ),
        (
            "role = \"router\"\nplugin_versions = { x = \"1.0.0\" }",
            partner("site = \"south\"\nconnect = [\"a:1\"]"),
            ": wanted runtime.mesh.tls = true",
        ),
        (
            "role = \"peer\"\ntls = true",
            partner("site = \"south\"\nconnect = [\"a:1\"]"),
            ": wanted runtime.mesh.role = \"router\"",
        ),
    ] {
        let found = faults(&router(mesh, &after));
        assert!(
            found.iter().any(|it| it.starts_with(&format!("{key}{wanted}"))),
            "{after} wanted {wanted}\n got {found:#?}"
        );
    }
}

#[test]
fn two_partners_share_neither_site_nor_address() {
    let both = |one: &str, other: &str| faults(&router(MESH, &format!("{}{}", partner(one), partner(other))));
    for (one, other, wanted) in [
        (
            "site = \"south\"\nconnect = [\"a:1\"]",
            "site = \"south\"\nconnect = [\"b:1\"]",
            ".site: site south is given twice",
        ),
        (
            "site = \"south\"\nconnect = [\"a:1\"]",
            "site = \"east\"\nconnect = [\"b:1\", \"a:1\"]",
            ".connect: a:1 is dialled already",
        ),
        (
            "site = \"south\"\nlisten = \"0.0.0.0:7448\"",
            "site = \"east\"\nlisten = \"10.0.0.1:7448\"",
            ".listen: 10.0.0.1:7448 is already taken by runtime.mesh.partner[0].listen",
        ),
    ] {
        let found = both(one, other);
        let wanted = format!("runtime.mesh.partner[1]{wanted}");
        assert!(found.iter().any(|it| it.starts_with(&wanted)), "wanted {wanted}\n got {found:#?}");
    }
    let own = format!("{MESH}\nconnect = [\"a:1\"]");
    let found = faults(&router(&own, &partner("site = \"south\"\nconnect = [\"a:1\"]")));
    assert!(found.iter().any(|it| it.contains("a:1 is dialled already")), "{found:#?}");
}

#[test]
fn a_partner_may_be_known_by_its_bundle_alone() {
    let linked = partner("site = \"west\"\nconnect = [\"a:1\"]");
    let known = "[[runtime.identity.partner]]\nsite = \"west\"\n";
    assert!(read(&router(MESH, &linked)).is_err());
    assert!(read(&router(MESH, &format!("{linked}{known}"))).is_ok());
}

#[test]
fn a_partner_goes_with_a_reload_and_comes_with_a_start() {
    let link = |site: &str| partner(&format!("site = {site:?}\nconnect = [\"gw.{site}:1\"]"));
    let bundle = |site: &str| format!("[[runtime.identity.partner]]\nsite = {site:?}\n");
    let of = |links: &[&str], bundles: &[&str]| {
        let links: String = links.iter().map(|site| link(site)).collect();
        let bundles: String = bundles.iter().map(|site| bundle(site)).collect();
        read(&router(MESH, &format!("{links}{bundles}"))).expect("valid")
    };
    let running = of(&["south", "east"], &["south", "east"]);
    let sites = |settings: &Settings| {
        let links = settings.mesh.partners.iter().map(|it| it.site.to_string());
        links.chain(settings.identity.partners.iter().map(|it| it.site.to_string())).collect::<Vec<_>>()
    };
    let (mesh, identity) = ("runtime.mesh.partner", "runtime.identity.partner");
    for (file, live, restart, left) in [
        (of(&["east"], &["south", "east"]), vec![mesh], vec![], vec!["east", "south", "east"]),
        (of(&["south", "east"], &["south"]), vec![identity], vec![], vec!["south", "east", "south"]),
        (of(&[], &[]), vec![identity, mesh], vec![], vec![]),
        // One goes and another comes: the first counts at once.
        (
            of(&["south", "west"], &["south", "west"]),
            vec![identity, mesh],
            vec!["runtime.identity", "runtime.mesh"],
            vec!["south", "south"],
        ),
    ] {
        let changes = running.changes_to(&file);
        assert_eq!((changes.live, changes.restart), (live, restart));
        assert_eq!(sites(&running.with_live_of(&file)), left);
    }
    // What is gone does not come back by itself, and another address of one that stays takes a start.
    let without = running.with_live_of(&of(&[], &[]));
    let changes = without.changes_to(&running);
    assert_eq!((changes.live, changes.restart), (vec![], vec!["runtime.identity", "runtime.mesh"]));
    let moved = read(&router(MESH, &partner("site = \"south\"\nconnect = [\"gw:2\"]"))).expect("valid");
    let changes = of(&["south"], &[]).changes_to(&moved);
    assert_eq!((changes.live, changes.restart), (vec![], vec!["runtime.mesh"]));
}
