//! Certificates, as anybody may present one before it is known whether an authority has signed it.

use trust_runtime::domain::identity::svid::{read_leaf, read_signer};
use trust_runtime::domain::identity::{Fingerprint, Mapping, Naming, SpiffeId};

fn naming() -> Naming {
    Naming { trust_domain: "trust".parse().expect("a trust domain"), mapping: Mapping::PathSite }
}

/// Whether it is somebody's certificate.
pub fn is_accepted(data: &[u8]) -> bool {
    read_leaf(data, &naming()).is_ok()
}

/// Nobody is both somebody and an authority, and who is read is named by the bytes of the certificate.
pub fn run(data: &[u8]) {
    let naming = naming();
    let leaf = read_leaf(data, &naming);
    let signer = read_signer(data, &naming.trust_domain);
    assert!(leaf.is_err() || signer.is_err(), "an identity that signs others");
    let Ok(leaf) = leaf else { return };
    assert_eq!(leaf.certificate, Fingerprint::of_der(data));
    assert_eq!(leaf.key, Fingerprint::of_der(&leaf.public_key));
    assert_eq!(leaf.id.to_string().parse::<SpiffeId>(), Ok(leaf.id.clone()));
    assert_eq!(naming.id_of(&leaf.subject), Ok(leaf.id.clone()));
    let uri = leaf.id.to_string();
    assert!(data.windows(uri.len()).any(|bytes| bytes == uri.as_bytes()), "{uri} does not stand in the certificate");
}
