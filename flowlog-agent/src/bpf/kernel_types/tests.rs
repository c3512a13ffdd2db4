use proptest::prelude::*;

use super::*;

/// A BTF file under construction.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        at
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend(word.to_ne_bytes());
        }
    }

    /// A type: kind, name, members, and size or type.
    fn begin(&mut self, (kind, name): (u32, &str), members: u32, size_or_type: u32) {
        let name = self.name(name);
        self.words(&[name, kind << 24 | members, size_or_type]);
    }

    /// A member: name, type, offset in bits.
    fn member(&mut self, name: &str, type_id: u32, bits: u32) {
        let name = self.name(name);
        self.words(&[name, type_id, bits]);
    }

    fn build(&self) -> Vec<u8> {
        let mut octets = MAGIC.to_ne_bytes().to_vec();
        octets.extend([1, 0]);
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            octets.extend(word.to_ne_bytes());
        }
        octets.extend(&self.types);
        octets.extend(&self.strings);
        octets
    }
}

/// 1: int; 2: `struct inner { int a; int b; }`; 3: `typedef struct inner inner_t`; 4: an anonymous union of int `u` and of `struct inner`
/// without a name; 5: `struct outer { int first; inner_t inner; (4); int bits : 3; inner_t array[2] }`; 6: the array; 7: `enum reason
/// { NONE, WHY = 12 }`; 8: a function of (void *, int, enum reason); 9: a pointer to it; 10: `typedef (9) called`.
fn example() -> Builder {
    let mut builder = Builder::new();
    builder.begin((1, "int"), 0, 4);
    builder.words(&[32]);
    builder.begin((KIND_STRUCT, "inner"), 2, 8);
    builder.member("a", 1, 0);
    builder.member("b", 1, 32);
    builder.begin((KIND_TYPEDEF, "inner_t"), 0, 2);
    builder.begin((KIND_UNION, ""), 2, 8);
    builder.member("u", 1, 0);
    builder.member("", 2, 0);
    // With bit fields: offsets have 24 bits, and above them a length.
    builder.begin((KIND_STRUCT, "outer"), 5, 40);
    let at = builder.types.len() - 5;
    builder.types[at] |= 0x80;
    builder.member("first", 1, 0);
    builder.member("inner", 3, 32);
    builder.member("", 4, 96);
    builder.member("bits", 1, 3 << 24 | 161);
    builder.member("array", 6, 192);
    builder.begin((3, ""), 0, 0);
    builder.words(&[3, 1, 2]);
    builder.begin((KIND_ENUM, "reason"), 2, 4);
    for (name, value) in [("NONE", 0), ("WHY", 12)] {
        let name = builder.name(name);
        builder.words(&[name, value]);
    }
    builder.begin((KIND_FUNCTION_PROTOTYPE, ""), 3, 0);
    builder.words(&[0, 0, 0, 1, 0, 7]);
    builder.begin((KIND_POINTER, ""), 0, 8);
    builder.begin((KIND_TYPEDEF, "called"), 0, 9);
    builder
}

#[test]
fn fields_are_found_also_in_what_has_no_name() {
    let types = KernelTypes::parse(example().build()).unwrap();
    let outer = types.find_struct("outer").unwrap();
    let offset = |path: &str| types.path(outer, path).map(|field| field.offset);
    for (path, expected) in [
        ("first", Some(0)),
        ("inner", Some(4)),
        ("inner.b", Some(8)),
        ("u", Some(12)),
        ("b", Some(16)),
        ("array", Some(24)),
        ("bits", None),
        ("inner.c", None),
        ("first.a", None),
        ("nothing", None),
    ] {
        assert_eq!(offset(path), expected, "{path}");
    }
    let array = types.path(outer, "array").unwrap();
    let element = types.element(array.type_id).unwrap();
    assert_eq!(types.size(element), Some(8));
    assert_eq!(types.element(outer), None);
    assert_eq!(types.size(outer), Some(40));
    assert_eq!(types.find_struct("inner_t"), None);
}

#[test]
fn enumerators_and_parameters_are_found() {
    let types = KernelTypes::parse(example().build()).unwrap();
    assert_eq!(types.enumerator("reason", "WHY"), Some(12));
    assert_eq!(types.enumerator("reason", "WHEN"), None);
    assert_eq!(types.enumerator("season", "WHY"), None);
    assert!(types.parameter_is_enum("called", 2, "reason"));
    for (name, index, of) in [
        ("called", 1, "reason"),
        ("called", 3, "reason"),
        ("called", 2, "int"),
        ("inner_t", 2, "reason"),
        ("nobody", 2, "reason"),
    ] {
        assert!(
            !types.parameter_is_enum(name, index, of),
            "{name} {index} {of}"
        );
    }
}

#[test]
fn a_type_that_contains_itself_ends_the_search() {
    let mut builder = Builder::new();
    builder.begin((KIND_TYPEDEF, "loop"), 0, 1);
    builder.begin((KIND_STRUCT, "nested"), 1, 8);
    builder.member("", 2, 0);
    let types = KernelTypes::parse(builder.build()).unwrap();
    assert_eq!(types.size(TypeId(1)), None);
    let nested = types.find_struct("nested").unwrap();
    assert_eq!(types.field(nested, "missing"), None);
}

#[test]
fn what_is_no_btf_is_refused() {
    let whole = example().build();
    for octets in [
        Vec::new(),
        vec![0; 100],
        whole[..23].to_vec(),
        whole[..whole.len() / 2].to_vec(),
    ] {
        assert!(KernelTypes::parse(octets).is_none());
    }
    let mut unknown_kind = whole;
    unknown_kind[24 + 7] = 31;
    assert!(KernelTypes::parse(unknown_kind).is_none());
}

proptest! {
    /// Whatever is there: no panic, and an end.
    #[test]
    fn damaged_octets_do_no_harm(at in 0_usize..400, value: u8, cut in 0_usize..400) {
        let mut octets = example().build();
        if let Some(octet) = octets.get_mut(at) {
            *octet = value;
        }
        octets.truncate(octets.len().max(cut) - cut.min(octets.len()) / 8);
        if let Some(types) = KernelTypes::parse(octets) {
            let outer = types.find_struct("outer").unwrap_or(TypeId(5));
            let _ = types.path(outer, "inner.b");
            let _ = types.path(outer, "b");
            let _ = types.enumerator("reason", "WHY");
            let _ = types.parameter_is_enum("called", 2, "reason");
        }
    }
}
