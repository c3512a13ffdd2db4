//! Reading the kernel's own memory, where its BTF says that things are.
use core::mem::MaybeUninit;

use aya_ebpf::{Global, cty::c_void, helpers::generated::bpf_probe_read_kernel};
use flowlog_common::KernelLayout;

use crate::packet::Plain;

/// Where the running kernel keeps what is read here.
#[unsafe(no_mangle)]
static KERNEL: Global<KernelLayout> = Global::new(
    // SAFETY: integers.
    unsafe { MaybeUninit::zeroed().assume_init() },
);

/// A place in the kernel's memory; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

// SAFETY: an integer.
unsafe impl Plain for Address {}

/// Octets are read eight at a time, which the verifier wants aligned.
#[repr(C, align(8))]
struct OnStack<T>(T);

impl Address {
    /// Reads what is there, and zeros where nothing is: then the next address that is read there is 0 too, and so what follows.
    #[inline(always)]
    pub fn read<T: Plain>(self, offset: u32) -> T {
        let mut buffer = MaybeUninit::<OnStack<T>>::uninit();
        let from = buffer.as_mut_ptr().cast::<T>();
        // SAFETY: the buffer is as long as is said; the helper checks the address, and fills the buffer with zeros if it is none.
        unsafe {
            bpf_probe_read_kernel(
                from.cast(),
                size_of::<T>() as u32,
                (self.0 + u64::from(offset)) as *const c_void,
            )
        };
        if align_of::<T>() != 4 {
            // SAFETY: filled.
            return unsafe { from.read() };
        }
        // Word by word: the compiler would make one word of two, across what the verifier takes to be aligned on the stack.
        let mut value = MaybeUninit::<T>::uninit();
        for word in 0..size_of::<T>() / 4 {
            // SAFETY: both are of so many words; filled.
            unsafe {
                let word_read = from.cast::<u32>().add(word).read_volatile();
                value.as_mut_ptr().cast::<u32>().add(word).write(word_read);
            }
        }
        // SAFETY: written.
        unsafe { value.assume_init() }
    }

    /// The address that is there.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Self {
        self.read(offset)
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// One number of the layout. A read of the whole would put all of it on the stack.
#[inline(always)]
pub fn layout(field: impl FnOnce(*const KernelLayout) -> *const u32) -> u32 {
    // SAFETY: a field of a constant. Volatile, for user space puts other numbers there when it loads the program.
    unsafe { field((&raw const KERNEL).cast()).read_volatile() }
}

/// A number of the layout by its name.
#[macro_export]
macro_rules! layout {
    ($field:ident) => {
        $crate::kernel::layout(
            // SAFETY: `layout` gives a pointer to a live one.
            |layout| unsafe { &raw const (*layout).$field },
        )
    };
}
