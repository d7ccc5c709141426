//! SELinux on this node: which labels containers and their files get, and whether the policy knows a label.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

const MOUNTED: &str = "sys/fs/selinux";
const CONFIG: &str = "etc/selinux/config";
/// What a policy says of containers, below its own directory.
const CONTEXTS: &str = "contexts/lxc_contexts";
/// Of a policy that says nothing.
const PROCESS: &str = "system_u:system_r:container_t:s0";
const VM_PROCESS: &str = "system_u:system_r:container_kvm_t:s0";
const FILE: &str = "system_u:object_r:container_file_t:s0";
/// Policies have as many categories: c0 to c1023.
const CATEGORIES: u16 = 1024;
/// How often two categories are drawn before all pairs are gone through.
const DRAWS: u32 = 64;

/// `user:role:type:level`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

/// What a pod's or a container's processes and files are labelled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Labels {
    pub process: String,
    pub mount: String,
}

/// Parts of a label that are asked for; empty ones are not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    pub user: &'a str,
    pub role: &'a str,
    pub kind: &'a str,
    pub level: &'a str,
}

/// A kernel that has SELinux.
#[derive(Debug)]
pub(crate) struct SeLinux {
    /// Takes a label, and refuses one that the policy does not know.
    check: PathBuf,
    defaults: Labels,
    /// The process of a pod in a VM is the VM's monitor, which needs other rights.
    vm_process: String,
    pub levels: Levels,
}

impl FromStr for Label {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(());
        Ok(Self { user: next()?, role: next()?, kind: next()?, level: next()? })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.user, self.role, self.kind, self.level)
    }
}

impl Labels {
    /// These with the parts that are asked for. Files have neither a process's role nor its type.
    pub(crate) fn with(&self, wish: Wish<'_>) -> Self {
        let or = |asked: &str, own: String| if asked.is_empty() { own } else { asked.to_owned() };
        let change = |label: &str, role: &str, kind: &str| match label.parse::<Label>() {
            Ok(label) => Label {
                user: or(wish.user, label.user),
                role: or(role, label.role),
                kind: or(kind, label.kind),
                level: or(wish.level, label.level),
            }
            .to_string(),
            Err(()) => label.to_owned(),
        };
        Self {
            process: change(&self.process, wish.role, wish.kind),
            mount: change(&self.mount, "", ""),
        }
    }
}

impl SeLinux {
    /// `None` where it is off. `root` is the directory that everything of the system is looked for in.
    pub(crate) fn probe(root: &Path) -> Option<Self> {
        let mounted = root.join(MOUNTED);
        mounted.join("enforce").exists().then(|| {
            let (defaults, said) = defaults(root);
            let check = mounted.join("context");
            // Not every policy has something for VMs.
            let known = |label: &&str| is_known(&check, label).is_ok();
            let vm_process = said.or_else(|| Some(VM_PROCESS).filter(known).map(str::to_owned));
            let vm_process = vm_process.unwrap_or_else(|| defaults.process.clone());
            Self { check, defaults, vm_process, levels: Levels::default() }
        })
    }

    /// The labels of a pod on a level of its own.
    pub(crate) fn pod(&self, level: &str, in_vm: bool) -> Labels {
        let mut labels = self.defaults.clone();
        if in_vm {
            labels.process.clone_from(&self.vm_process);
        }
        labels.with(Wish { level, ..Wish::default() })
    }

    /// Whether the policy that is loaded knows these. Blocks.
    ///
    /// # Errors
    /// A text that names the label.
    pub(crate) fn check(&self, labels: &Labels) -> Result<(), String> {
        [&labels.process, &labels.mount].into_iter().try_for_each(|one| is_known(&self.check, one))
    }
}

fn is_known(check: &Path, label: &str) -> Result<(), String> {
    let kernel = std::fs::File::options().write(true).open(check);
    let mut kernel = kernel.map_err(|err| format!("{}: {err}", check.display()))?;
    kernel
        .write_all(format!("{label}\0").as_bytes())
        .map_err(|err| format!("the policy does not know the label {label:?}: {err}"))
}

/// The labels of a pod, and that of a VM's process where one is said.
fn defaults(root: &Path) -> (Labels, Option<String>) {
    let value = |text: &str, key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
        })
    };
    let config = std::fs::read_to_string(root.join(CONFIG)).unwrap_or_default();
    let policy = value(&config, "SELINUXTYPE").unwrap_or_default();
    let contexts = root.join("etc/selinux").join(policy).join(CONTEXTS);
    let contexts = std::fs::read_to_string(contexts).unwrap_or_default();
    let said = |key| value(&contexts, key).filter(|label| label.parse::<Label>().is_ok());
    let label = |key, default: &str| said(key).unwrap_or_else(|| default.to_owned());
    let labels = Labels { process: label("process", PROCESS), mount: label("file", FILE) };
    (labels, said("kvm_process"))
}

/// The levels of all pods, so that each that asks for none has one that no other has.
#[derive(Debug, Default)]
pub(crate) struct Levels(Mutex<BTreeMap<String, String>>);

impl Levels {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A level for `pod` that no other pod has; it keeps it until it is forgotten. `None`: there are none left.
    pub(crate) fn draw(&self, pod: &str) -> Option<String> {
        let mut taken = self.lock();
        let free = |level: &String| taken.values().all(|other| other != level);
        let random = (0..DRAWS).map(|_| level(random_category(), random_category()));
        let every = (1..CATEGORIES).flat_map(|high| (0..high).map(move |low| level(low, high)));
        let level = random.flatten().chain(every.flatten()).find(free)?;
        taken.insert(pod.to_owned(), level.clone());
        Some(level)
    }

    /// `pod` has this label, from whatever source.
    pub(crate) fn keep(&self, pod: &str, label: &str) {
        if let Ok(label) = label.parse::<Label>() {
            self.lock().insert(pod.to_owned(), label.level);
        }
    }

    pub(crate) fn forget(&self, pod: &str) {
        self.lock().remove(pod);
    }
}

/// As the kernel writes it; one category twice is none of a pair.
fn level(one: u16, other: u16) -> Option<String> {
    (one != other).then(|| format!("s0:c{},c{}", one.min(other), one.max(other)))
}

fn random_category() -> u16 {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    u16::from_le_bytes(bytes) % CATEGORIES
}

/// Whether a text can be the part of a label before its level.
pub(crate) fn is_part(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Whether a text is a level, or a range of two: `s0`, `s0:c1,c2`, `s0-s15:c0.c1023`.
pub(crate) fn is_level(text: &str) -> bool {
    let number = |text: &str, letter| {
        let digits = text.strip_prefix(letter).unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let one = |level: &str| match level.split_once(':') {
        None => number(level, 's'),
        Some((sensitivity, categories)) => {
            let known = |range: &str| {
                let mut ends = range.splitn(2, '.');
                ends.all(|category| number(category, 'c'))
            };
            number(sensitivity, 's') && categories.split(',').all(known)
        }
    };
    text.splitn(2, '-').all(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn labels_come_from_the_policy() {
        assert!(SeLinux::probe(system(&[]).path()).is_none());
        let enforce = ("sys/fs/selinux/enforce", "1");
        let plain = SeLinux::probe(system(&[enforce]).path()).unwrap();
        assert_eq!(plain.pod("s0:c1,c2", false).process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(
            plain.pod("s0:c1,c2", false).mount,
            "system_u:object_r:container_file_t:s0:c1,c2"
        );
        assert_eq!(plain.pod("s0", true), plain.pod("s0", false), "a policy without VMs");
        let with_vms = SeLinux::probe(system(&[enforce, ("sys/fs/selinux/context", "")]).path());
        let label = with_vms.unwrap().pod("s0", true).process;
        assert_eq!(label, "system_u:system_r:container_kvm_t:s0");
        let own = system(&[
            enforce,
            ("etc/selinux/config", "# of this node\nSELINUX=enforcing\nSELINUXTYPE=strict\n"),
            (
                "etc/selinux/strict/contexts/lxc_contexts",
                "process = \"u:r:own_t:s0\"\ncontent = \"x\"\nfile = \"u:object_r:own_file_t:s0\"\n\
                 kvm_process = \"u:r:own_kvm_t:s0\"\n",
            ),
        ]);
        let own = SeLinux::probe(own.path()).unwrap();
        assert_eq!(own.pod("s0:c3,c4", true).process, "u:r:own_kvm_t:s0:c3,c4");
        let labels = own.pod("s0:c3,c4", false);
        assert_eq!(labels.process, "u:r:own_t:s0:c3,c4");
        assert_eq!(labels.mount, "u:object_r:own_file_t:s0:c3,c4");
    }

    #[test]
    fn what_is_asked_for_replaces_its_part() {
        let labels = Labels { process: PROCESS.into(), mount: FILE.into() };
        let wish = Wish { user: "u", role: "r", kind: "spc_t", level: "s0:c7" };
        let with = labels.with(wish);
        assert_eq!(
            (with.process.as_str(), with.mount.as_str()),
            ("u:r:spc_t:s0:c7", "u:object_r:container_file_t:s0:c7")
        );
        assert_eq!(labels.with(Wish::default()), labels);
    }

    #[test]
    fn the_kernel_is_asked() {
        let dir = system(&[("sys/fs/selinux/enforce", "1"), ("sys/fs/selinux/context", "")]);
        let selinux = SeLinux::probe(dir.path()).unwrap();
        selinux.check(&selinux.pod("s0", false)).unwrap();
        let context = dir.path().join("sys/fs/selinux/context");
        std::fs::remove_file(&context).unwrap();
        std::os::unix::fs::symlink("/dev/full", &context).unwrap();
        let err = selinux.check(&selinux.pod("s0:c9", false)).unwrap_err();
        assert!(err.contains("\"system_u:system_r:container_t:s0:c9\""), "{err}");
    }

    #[test]
    fn every_pod_has_a_level_of_its_own() {
        let levels = Levels::default();
        levels.keep("old", "u:r:t:s0:c1,c2");
        let mut seen = std::collections::BTreeSet::from(["s0:c1,c2".to_owned()]);
        for pod in 0..2000 {
            let level = levels.draw(&pod.to_string()).unwrap();
            assert!(is_level(&level), "{level}");
            assert!(seen.insert(level), "drawn twice");
        }
        levels.forget("7");
        assert_eq!(levels.lock().len(), 2000);
    }

    #[test]
    fn levels_and_parts() {
        for good in ["s0", "s0:c1", "s0:c1,c2", "s0-s15:c0.c1023", "s1:c0.c5,c7-s2:c0.c9", "s0-s0"]
        {
            assert!(is_level(good), "{good}");
        }
        for bad in [
            "",
            "s",
            "c1",
            "s0:",
            "s0:c",
            "s0:c1,",
            "s0:c1;c2",
            "s0:c1-",
            "0",
            "s0 ",
            "s0:c1.c2.c3",
            "s0:x1",
        ] {
            assert!(!is_level(bad), "{bad}");
        }
        assert!(is_part("container_t") && is_part("staff_u"));
        assert!(!is_part("a:b") && !is_part("a b") && !is_part("") && !is_part("a\n"));
    }
}
