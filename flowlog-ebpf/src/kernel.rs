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

impl Address {
    /// Reads what is there; `None` if nothing is.
    #[inline(always)]
    pub fn read<T: Plain>(self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the buffer is as long as is said; the helper checks the address, and fills all of the buffer whatever the result.
        let result = unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                (self.0 + u64::from(offset)) as *const c_void,
            )
        };
        // SAFETY: filled.
        (result == 0).then(|| unsafe { value.assume_init() })
    }

    /// Likewise, where it is another address: `None` also if that is none.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Option<Self> {
        self.read::<Self>(offset).filter(|address| address.0 != 0)
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
