//! The running kernel's types (BTF), as far as a program must know them: offsets of fields, values of enumerators, parameters.
//!
//! Read from the octets as they are, for a kernel has more than a hundred thousand types, of which about twenty are looked at. Libraries
//! make an object of each, which costs tens of megabytes of a daemon that must be small. The format is that of the kernel's
//! Documentation/bpf/btf.rst.
use std::{fs, io, path::Path};

/// The first octets of a BTF section.
const MAGIC: u16 = 0xeb9f;
/// Octets of the header, as far as it is read.
const HEADER_OCTETS: usize = 24;
/// How deep anonymous structs and unions are searched for a field.
const MAX_DEPTH: u32 = 16;
/// The longest chain of typedefs and qualifiers that is followed.
const MAX_CHAIN: u32 = 32;
/// The largest file that is read, in octets. Kernels have 5 to 20 MiB.
const MAX_OCTETS: u64 = 64 << 20;

/// Kinds of types that matter here.
const KIND_POINTER: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNCTION_PROTOTYPE: u32 = 13;
const KIND_ENUM64: u32 = 19;

/// The types of one BTF file.
pub(super) struct KernelTypes {
    octets: Vec<u8>,
    /// Where the strings begin.
    strings: usize,
    /// Where each type begins, by its number less 1.
    types: Vec<u32>,
}

/// A type: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(u32);

/// A field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Octets from the struct's begin.
    pub offset: u32,
    pub type_id: TypeId,
}

impl KernelTypes {
    /// Reads a file such as `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// The file's; and if it is no BTF, or too large.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        // What sysfs says of the size is right for BTF.
        if fs::metadata(path)?.len() > MAX_OCTETS {
            return Err(io::Error::other("it is larger than 64 MiB"));
        }
        Self::parse(fs::read(path)?)
            .ok_or_else(|| io::Error::other("it is no BTF that can be read"))
    }

    /// From the octets of a file, which are in this machine's byte order.
    fn parse(octets: Vec<u8>) -> Option<Self> {
        let word = |at: usize| word(&octets, at);
        let magic = octets.get(..2)?;
        if u16::from_ne_bytes([magic[0], magic[1]]) != MAGIC {
            return None;
        }
        let header = word(4)? as usize;
        if header < HEADER_OCTETS {
            return None;
        }
        let mut at = header.checked_add(word(8)? as usize)?;
        let end = at.checked_add(word(12)? as usize)?;
        let strings = header.checked_add(word(16)? as usize)?;
        let mut types = Vec::new();
        while at < end {
            types.push(u32::try_from(at).ok()?);
            let info = word(at + 4)?;
            at = at.checked_add(12 + following_octets(info)?)?;
        }
        (at == end && end <= octets.len() && strings <= octets.len()).then_some(Self {
            octets,
            strings,
            types,
        })
    }

    /// The first type of that kind with that name.
    fn find(&self, kind: u32, name: &str) -> Option<TypeId> {
        let found = self.types.iter().position(|at| {
            let info = word(&self.octets, *at as usize + 4);
            info.is_some_and(|info| kind_of(info) == kind)
                && self.name_at(*at as usize) == Some(name.as_bytes())
        })?;
        Some(TypeId(u32::try_from(found).ok()? + 1))
    }

    /// The struct of that name.
    pub(super) fn find_struct(&self, name: &str) -> Option<TypeId> {
        self.find(KIND_STRUCT, name)
    }

    /// The value of an enumerator of a named enum.
    pub(super) fn enumerator(&self, of: &str, name: &str) -> Option<u32> {
        let (id, step) = self
            .find(KIND_ENUM, of)
            .map(|id| (id, 8))
            .or_else(|| Some((self.find(KIND_ENUM64, of)?, 12)))?;
        let begin = self.begin(id)? + 12;
        let at = (0..self.length(id)?)
            .map(|index| begin + index * step)
            .find(|at| self.name_at(*at) == Some(name.as_bytes()))?;
        word(&self.octets, at + 4)
    }

    /// Whether parameter `index` of the functions that the typedef `name` points to is of the named enum.
    pub(super) fn parameter_is_enum(&self, name: &str, index: usize, of: &str) -> bool {
        let is = || -> Option<bool> {
            let pointer = self.target(self.find(KIND_TYPEDEF, name)?)?;
            let prototype = self.target_of_kind(pointer, KIND_POINTER)?;
            if self.kind(prototype)? != KIND_FUNCTION_PROTOTYPE
                || index >= self.length(prototype)?
            {
                return None;
            }
            let at = self.begin(prototype)? + 12 + index * 8;
            let parameter = TypeId(word(&self.octets, at + 4)?);
            let kind = self.kind(parameter)?;
            let named = self.name_at(self.begin(parameter)?)? == of.as_bytes();
            Some(named && (kind == KIND_ENUM || kind == KIND_ENUM64))
        };
        is().unwrap_or(false)
    }

    /// A field of a struct, also where it is in anonymous structs and unions of it. `None` if there is none, or if it does not begin at a
    /// whole octet.
    pub(super) fn field(&self, of: TypeId, name: &str) -> Option<Field> {
        self.field_below(self.plain(of)?, name, MAX_DEPTH)
    }

    /// The field that a path such as `nd_net.net` leads to.
    pub(super) fn path(&self, of: TypeId, path: &str) -> Option<Field> {
        let begin = Field {
            offset: 0,
            type_id: of,
        };
        path.split('.').try_fold(begin, |outer, name| {
            let inner = self.field(outer.type_id, name)?;
            Some(Field {
                offset: outer.offset.checked_add(inner.offset)?,
                ..inner
            })
        })
    }

    /// What an array has as elements.
    pub(super) fn element(&self, array: TypeId) -> Option<TypeId> {
        const KIND_ARRAY: u32 = 3;
        let array = self.plain(array)?;
        if self.kind(array)? != KIND_ARRAY {
            return None;
        }
        Some(TypeId(word(&self.octets, self.begin(array)? + 12)?))
    }

    /// Octets of a struct.
    pub(super) fn size(&self, of: TypeId) -> Option<u32> {
        word(&self.octets, self.begin(self.plain(of)?)? + 8)
    }

    fn field_below(&self, of: TypeId, name: &str, depth: u32) -> Option<Field> {
        let depth = depth.checked_sub(1)?;
        let begin = self.begin(of)?;
        let info = word(&self.octets, begin + 4)?;
        if !matches!(kind_of(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        // With bit fields among them, the upper 8 bits of an offset are a field's length in bits.
        let mask = if info >> 31 == 1 {
            0x00ff_ffff
        } else {
            u32::MAX
        };
        (0..self.length(of)?).find_map(|index| {
            let at = begin + 12 + index * 12;
            let bits = word(&self.octets, at + 8)? & mask;
            let type_id = TypeId(word(&self.octets, at + 4)?);
            let member = self.name_at(at)?;
            if member == name.as_bytes() {
                return bits.is_multiple_of(8).then_some(Field {
                    offset: bits / 8,
                    type_id,
                });
            }
            if !member.is_empty() {
                return None;
            }
            let inner = self.field_below(self.plain(type_id)?, name, depth)?;
            Some(Field {
                offset: (bits / 8).checked_add(inner.offset)?,
                ..inner
            })
        })
    }

    /// A type without typedefs and qualifiers around it.
    fn plain(&self, id: TypeId) -> Option<TypeId> {
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            match self.kind(id)? {
                // Typedef, volatile, const, restrict, type tag.
                KIND_TYPEDEF | 9 | 10 | 11 | 18 => id = self.target(id)?,
                _ => return Some(id),
            }
        }
        None
    }

    fn target_of_kind(&self, id: TypeId, kind: u32) -> Option<TypeId> {
        (self.kind(id)? == kind).then(|| self.target(id))?
    }

    /// What a pointer, a typedef or a qualifier is of.
    fn target(&self, id: TypeId) -> Option<TypeId> {
        Some(TypeId(word(&self.octets, self.begin(id)? + 8)?))
    }

    fn kind(&self, id: TypeId) -> Option<u32> {
        Some(kind_of(word(&self.octets, self.begin(id)? + 4)?))
    }

    /// Members, enumerators or parameters.
    fn length(&self, id: TypeId) -> Option<usize> {
        Some(length_of(word(&self.octets, self.begin(id)? + 4)?))
    }

    fn begin(&self, id: TypeId) -> Option<usize> {
        let index = id.0.checked_sub(1)? as usize;
        Some(*self.types.get(index)? as usize)
    }

    /// The name of what begins at `at`: types, members and enumerators all begin with it.
    fn name_at(&self, at: usize) -> Option<&[u8]> {
        let offset = word(&self.octets, at)? as usize;
        let name = self.octets.get(self.strings.checked_add(offset)?..)?;
        name.split(|octet| *octet == 0).next()
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn length_of(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Octets that follow a type's first 12. `None` for a kind that is not known, whose length nobody can tell.
fn following_octets(info: u32) -> Option<usize> {
    let length = length_of(info);
    Some(match kind_of(info) {
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        KIND_STRUCT | KIND_UNION | KIND_ENUM64 => length * 12,
        // Section.
        15 => length * 12,
        KIND_ENUM | KIND_FUNCTION_PROTOTYPE => length * 8,
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(octets.try_into().ok()?))
}

#[cfg(test)]
mod tests;
