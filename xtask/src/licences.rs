//! The licence check: every dependency's licence expression against the list in `deny.toml`. It needs no network of its own.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::process::{output, say};

/// What is read here of `deny.toml`; the rest is for cargo-deny.
#[derive(Debug, Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licences,
}

#[derive(Debug, Deserialize)]
struct Graph {
    /// The target triples whose dependencies count.
    targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Licences {
    /// SPDX identifiers, each with or without an exception.
    allow: Vec<String>,
}

/// What `cargo metadata` says of the dependencies.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// Checks the dependencies of the workspace and of `flowlog-ebpf`.
///
/// # Errors
///
/// One sentence that lists every dependency whose licence is not allowed.
pub(crate) fn check(root: &Path) -> Result<()> {
    let path = root.join("deny.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let deny: Deny =
        toml::from_str(&text).with_context(|| format!("{} is not as expected", path.display()))?;
    let allowed = parse_allowed(&deny.licenses.allow)?;
    let mut refused = BTreeSet::new();
    let mut count = 0;
    for manifest in ["Cargo.toml", "flowlog-ebpf/Cargo.toml"] {
        let packages = packages_of(&root.join(manifest), &deny.graph.targets)?;
        count += packages.len();
        refused.extend(
            packages
                .iter()
                .filter_map(|package| refusal(package, &allowed)),
        );
    }
    if !refused.is_empty() {
        let list = refused.into_iter().collect::<Vec<_>>().join("; ");
        bail!("licences that deny.toml does not allow: {list}");
    }
    say(&format!(
        "{count} packages have licences that deny.toml allows"
    ));
    Ok(())
}

fn packages_of(manifest: &Path, targets: &[String]) -> Result<Vec<Package>> {
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "metadata",
            "--format-version=1",
            "--quiet",
            "--manifest-path",
        ])
        .arg(manifest);
    cargo.args(
        targets
            .iter()
            .map(|target| format!("--filter-platform={target}")),
    );
    let metadata: Metadata = serde_json::from_slice(&output(&mut cargo)?)
        .context("cargo metadata is not as expected")?;
    Ok(metadata.packages)
}

fn parse_allowed(names: &[String]) -> Result<Vec<Licensee>> {
    let parse = |name: &String| {
        Licensee::parse(name)
            .with_context(|| format!("deny.toml, licenses.allow: `{name}` is no SPDX licence"))
    };
    names.iter().map(parse).collect()
}

/// Why the package may not be used, if so.
fn refusal(package: &Package, allowed: &[Licensee]) -> Option<String> {
    let Package {
        name,
        version,
        license,
    } = package;
    let Some(license) = license else {
        return Some(format!("{name} {version} names no licence"));
    };
    // Lax: older crates write `MIT/Apache-2.0`.
    match Expression::parse_mode(license, ParseMode::LAX) {
        Ok(expression)
            if expression
                .evaluate(|wanted| allowed.iter().any(|licensee| licensee.satisfies(wanted))) =>
        {
            None
        }
        Ok(_) => Some(format!("{name} {version} is `{license}`")),
        Err(error) => Some(format!(
            "{name} {version} has no valid licence expression, `{license}`: {}",
            error.reason
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(license: Option<&str>) -> Option<String> {
        let allowed = [
            "MIT",
            "Apache-2.0",
            "Apache-2.0 WITH LLVM-exception",
            "Unicode-3.0",
        ]
        .map(str::to_owned);
        let license = license.map(str::to_owned);
        refusal(
            &Package {
                name: "some".into(),
                version: "1.2.3".into(),
                license,
            },
            &parse_allowed(&allowed).unwrap(),
        )
    }

    #[test]
    fn allowed_expressions_pass() {
        for license in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "Apache-2.0 / GPL-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(refused(Some(license)), None, "{license}");
        }
    }

    #[test]
    fn other_expressions_are_refused_with_the_package() {
        for license in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR Apache-2.0) AND Zlib",
            "MIT WITH LLVM-exception",
            "LicenseRef-own",
        ] {
            assert_eq!(
                refused(Some(license)),
                Some(format!("some 1.2.3 is `{license}`"))
            );
        }
        assert_eq!(refused(None).unwrap(), "some 1.2.3 names no licence");
        assert!(
            refused(Some("Non-Standard"))
                .unwrap()
                .contains("no valid licence expression")
        );
    }

    #[test]
    fn the_projects_deny_toml_allows_its_own_licence() {
        let deny: Deny = toml::from_str(include_str!("../../deny.toml")).unwrap();
        let allowed = parse_allowed(&deny.licenses.allow).unwrap();
        let own = Package {
            name: "flowlog".into(),
            version: "0.1.0".into(),
            license: Some("MIT OR Apache-2.0".into()),
        };
        assert_eq!(refusal(&own, &allowed), None);
        assert!(!deny.graph.targets.is_empty());
    }

    #[test]
    fn misspelt_licence_in_the_list_is_named() {
        let error = parse_allowed(&["MTI".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "deny.toml, licenses.allow: `MTI` is no SPDX licence");
    }
}
