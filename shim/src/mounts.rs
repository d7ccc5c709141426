//! Mounts as the wire has them (type, source, options in the words of mount(8)) and as the
//! snapshotter does.

use api::types;
use snapshotter::mount::{Kind, Mount};

/// In the words of the wire. An overlay's layers become its `lowerdir` option.
pub fn to_wire(mount: &Mount) -> types::Mount {
    let mut options = mount.options.clone();
    let kind = match &mount.kind {
        Kind::Overlay => "overlay",
        Kind::Bind => "bind",
        Kind::Other(name) => name,
    };
    if mount.kind == Kind::Overlay {
        let layers: Vec<String> = mount.layers.iter().map(|path| escape(path)).collect();
        options.push(format!("lowerdir={}", layers.join(":")));
        for (name, dir) in [("upperdir", &mount.upper), ("workdir", &mount.work)] {
            options.extend(dir.as_ref().map(|dir| format!("{name}={}", dir.to_string_lossy())));
        }
    }
    if mount.kind == Kind::Bind && !options.iter().any(|option| option.ends_with("bind")) {
        options.push("rbind".into());
    }
    if mount.read_only {
        options.push("ro".into());
    }
    let source = match mount.kind {
        Kind::Overlay => "overlay".into(),
        Kind::Bind | Kind::Other(_) => mount.source.to_string_lossy().into_owned(),
    };
    types::Mount { r#type: kind.to_owned(), source, target: String::new(), options }
}

/// As the snapshotter mounts it.
pub fn from_wire(wire: &types::Mount) -> Mount {
    let mut mount = Mount {
        kind: match wire.r#type.as_str() {
            "overlay" => Kind::Overlay,
            "bind" | "rbind" => Kind::Bind,
            other => Kind::Other(other.to_owned()),
        },
        source: wire.source.clone().into(),
        layers: Vec::new(),
        upper: None,
        work: None,
        options: Vec::new(),
        read_only: false,
    };
    let overlay = mount.kind == Kind::Overlay;
    for option in &wire.options {
        match option.split_once('=') {
            Some(("lowerdir", layers)) if overlay => mount.layers = split(layers),
            Some(("upperdir", dir)) if overlay => mount.upper = Some(dir.into()),
            Some(("workdir", dir)) if overlay => mount.work = Some(dir.into()),
            _ if option == "ro" => mount.read_only = true,
            _ if option == "rw" => mount.read_only = false,
            _ => mount.options.push(option.clone()),
        }
    }
    mount
}

/// Overlayfs ends a layer at a colon that has no backslash before it.
fn escape(path: &std::path::Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}

fn split(layers: &str) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    let mut layer = String::new();
    let mut characters = layers.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => layer.extend(characters.next()),
            ':' => all.push(std::mem::take(&mut layer).into()),
            other => layer.push(other),
        }
    }
    all.push(layer.into());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_survives_the_wire() {
        let mount = Mount {
            kind: Kind::Overlay,
            source: "overlay".into(),
            layers: vec!["/a:b".into(), "/c\\d".into()],
            upper: Some("/u".into()),
            work: Some("/w".into()),
            options: vec!["volatile".into()],
            read_only: false,
        };
        let wire = to_wire(&mount);
        assert_eq!(
            wire.options,
            ["volatile", "lowerdir=/a\\:b:/c\\\\d", "upperdir=/u", "workdir=/w"]
        );
        assert_eq!(from_wire(&wire), mount);
    }

    #[test]
    fn a_bind_mount_survives_the_wire() {
        let mut mount = Mount::bind("/layer", true);
        mount.options.push("rbind".into());
        let wire = to_wire(&mount);
        assert_eq!(
            (wire.r#type.as_str(), wire.options.as_slice()),
            ("bind", &["rbind".to_owned(), "ro".into()][..])
        );
        assert_eq!(from_wire(&wire), mount);
    }
}
