//! UCloud's signature: SHA-1 over the sorted parameters and the private key ("Signature algorithm",
//! docs.ucloud.cn/api/summary/signature). Pure.
//!
//! Neither host nor time is part of it, so it is the same at every white-label address and whatever
//! this machine's clock says. What is signed is the text before any escaping.

use sha1::{Digest, Sha1};
use url::form_urlencoded;

use crate::providers::hex::hex;
use crate::secret::Secret;

/// The parameters of a call, flattened: each name once.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// `parameters`, with the public key and the signature among them, as the body of a form.
pub(super) fn form(
    mut parameters: Parameters,
    public_key: &Secret,
    private_key: &Secret,
) -> String {
    parameters.push(("PublicKey", public_key.expose().to_owned()));
    let signature = signature(&parameters, private_key);
    parameters.push(("Signature", signature));
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

/// The signature of `parameters`, the public key among them: each name followed by its value, in the
/// order of the names, then the private key.
fn signature(parameters: &[(&'static str, String)], private_key: &Secret) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort_unstable();
    let mut digest = Sha1::new();
    for (name, value) in sorted {
        digest.update(name);
        digest.update(value);
    }
    digest.update(private_key.expose());
    hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key pair that the documentation prints.
    const PUBLIC: &str = "ucloudsomeone@example.com1296235120854146120";
    const PRIVATE: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";

    fn signed(pairs: &[(&'static str, &str)]) -> String {
        let mut parameters: Parameters = vec![("PublicKey", PUBLIC.to_owned())];
        parameters.extend(
            pairs
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        signature(&parameters, &Secret::new(PRIVATE))
    }

    /// The documentation's own example and signatures that the official SDKs make.
    #[test]
    fn the_signatures_of_the_documentation_and_of_the_official_sdk() {
        let cluster = [
            ("ClusterId", "umongodb-abc"),
            ("ProjectId", "org-xyz"),
            ("Region", "cn-bj2"),
        ];
        let with = |more: &[(&'static str, &str)]| signed(&[&cluster[..], more].concat());
        for (number, made, expected) in [
            (
                1,
                signed(&[
                    ("Action", "DescribeUHostInstance"),
                    ("Region", "cn-bj2"),
                    ("Limit", "10"),
                ]),
                "cba5cf5ec4d4233d206b1b54951e3787350a642f",
            ),
            (
                2,
                signed(&[("Action", "GetProjectList")]),
                "af7ef441ef4cfd960313696b654a0514c8c9fec4",
            ),
            (
                3,
                signed(&[("Action", "GetRegion")]),
                "f1b19c456b24b3ef433b90dc3b20debfd0de879b",
            ),
            (
                4,
                signed(&[
                    ("Action", "ListUMongoDBInstances"),
                    ("ProjectId", "org-xyz"),
                    ("Region", "cn-bj2"),
                ]),
                "cfb3b802c90794aae3314e6e7fc8b2aa24ef15b4",
            ),
            (
                5,
                with(&[("Action", "DescribeUMongoDBInstance")]),
                "46941bd18dda1e5c8f9a2ddd7b7eacd60f9f177a",
            ),
            (
                6,
                with(&[("Action", "ListUMongoDBBackup"), ("Zone", "cn-bj2-05")]),
                "e9f50000f8b3d1b63962a956348d5cd75d89b0a0",
            ),
            (
                7,
                with(&[
                    ("Action", "DescribeUMongoDBBackupURL"),
                    ("BackupId", "umongodb-bk-1"),
                    ("ValidTime", "14400"),
                    ("Zone", "cn-bj2-05"),
                ]),
                "2c9d0f77c0af67951447b0516ca0ce2a1f753963",
            ),
            (
                8,
                with(&[
                    ("Action", "DescribeUMongoDBBackupURL"),
                    ("Category", "oplog"),
                    ("PackageId", "7"),
                ]),
                "dc7fe77a034c5c64c802596e6ccafdb73c66d79c",
            ),
            (
                9,
                signed(&[
                    ("Action", "Foo"),
                    ("B", "true"),
                    ("C", "false"),
                    ("F", "1"),
                    ("G", "1.5"),
                    ("L.0", "a"),
                    ("L.1", "b"),
                    ("D.k", "v"),
                    ("LD.0.x", "1"),
                    ("LD.0.y", "z"),
                    ("Zh", "中文 a+b&c"),
                ]),
                "dee4f06385069e0843acd1858a42f2c2ad8a3c56",
            ),
            (
                11,
                signed(&[("Action", "Foo"), ("E", "")]),
                "2599b6658e9fe7cc07ff7096c28997015c7920ba",
            ),
        ] {
            assert_eq!(made, expected, "V{number}");
        }
    }

    #[test]
    fn names_are_sorted_as_text_not_as_numbers() {
        let names = [
            "IP.0", "IP.1", "IP.2", "IP.3", "IP.4", "IP.5", "IP.6", "IP.7", "IP.8", "IP.9",
            "IP.10", "IP.11",
        ];
        let values: Vec<String> = (0..12).map(|number| format!("ip{number}")).collect();
        let mut pairs = vec![("Action", "Foo")];
        pairs.extend(
            names
                .iter()
                .zip(&values)
                .map(|(name, value)| (*name, &**value)),
        );
        assert_eq!(signed(&pairs), "d081aa19daf760d3e47c12261d56927ac76b34a2");
    }

    #[test]
    fn the_signatures_of_other_keys_and_calls() {
        let host = [
            ("Action", "CreateUHostInstance"),
            ("CPU", "2"),
            ("ChargeType", "Month"),
            ("DiskSpace", "10"),
            ("ImageId", "f43736e1-65a5-4bea-ad2e-8a46e18883c2"),
            ("LoginMode", "Password"),
            ("Memory", "2048"),
            ("Name", "Host01"),
            ("Password", "VUNsb3VkLmNu"),
            ("Quantity", "1"),
            ("Region", "cn-bj2"),
            ("Zone", "cn-bj2-04"),
        ];
        assert_eq!(signed(&host), "4f9ef5df2abab2c6fccd1e9515cb7e2df8c6bb65");
        let token = [&host[..], &[("SecurityToken", "some_stoken")]].concat();
        assert_eq!(signed(&token), "170c480ad176a247b324eb92a2cfe536aacfbd04");
        let foo = ("foo", "bar".to_owned());
        let key = Secret::new("my_private_key");
        let public = ("PublicKey", "my_public_key".to_owned());
        assert_eq!(
            signature(&[foo.clone(), public], &key),
            "d4411ab30953fb0bbcb1e7313081f05e4e91a394"
        );
        assert_eq!(
            signature(&[foo], &key),
            "634edc1bb957c0d65e5ab5494cf3b7784fbc87af"
        );
    }

    #[test]
    fn the_form_is_escaped_after_it_was_signed() {
        let parameters = vec![
            ("Action", "GetProjectList".to_owned()),
            ("Name", "a b&中".to_owned()),
        ];
        let form = form(
            parameters.clone(),
            &Secret::new(PUBLIC),
            &Secret::new(PRIVATE),
        );
        let mut whole = parameters;
        whole.push(("PublicKey", PUBLIC.to_owned()));
        let signature = signature(&whole, &Secret::new(PRIVATE));
        assert_eq!(
            form,
            format!(
                "Action=GetProjectList&Name=a+b%26%E4%B8%AD&PublicKey=ucloudsomeone%40example.com1296235120854146120&Signature={signature}"
            )
        );
    }

    proptest! {
        #[test]
        fn the_order_of_the_parameters_does_not_matter(a in ".{0,20}", b in ".{0,20}") {
            prop_assert_eq!(signed(&[("A", &a), ("B", &b)]), signed(&[("B", &b), ("A", &a)]));
        }
    }
}
