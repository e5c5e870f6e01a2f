//! fuser's `Filesystem` on [`Fs`](crate::fs::Fs): translation only.
//!
//! Every operation is a future from `fs` and a closure that answers with its result; how it runs,
//! how long and who may end it is in [`super::serve`]. Nothing here can change the tree: what would
//! is answered EROFS, should it get past the mount flags at all.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::convert::{self, GENERATION};
use super::listing;
use super::opening::{self, Opening};
use super::serve::{Operation, Service};
use super::terms;
use crate::error::{Error, Kind, Result};
use crate::fs::Fs;

/// The only extended attributes that exist (xattr(7)).
const USER_NAMESPACE: &[u8] = b"user.";
/// Longest name of a path component, in bytes.
const NAME_MAX: u32 = 255;

/// What fuser calls.
#[derive(Debug)]
pub(super) struct Adapter {
    service: Arc<Service>,
    op_timeout: Duration,
    open_timeout: Duration,
}

impl Adapter {
    /// An adapter that gives opens, and reads of what is being spooled, `open_timeout` and
    /// everything else `op_timeout`.
    pub(super) fn new(service: Arc<Service>, op_timeout: Duration, open_timeout: Duration) -> Self {
        Adapter {
            service,
            op_timeout,
            open_timeout,
        }
    }

    fn fs(&self) -> Fs {
        self.service.fs.clone()
    }

    fn operation(&self, name: &'static str) -> Operation {
        Operation {
            name,
            deadline: self.op_timeout,
            ends_at_stop: true,
        }
    }

    fn serve<T: Send + 'static>(
        &self,
        name: &'static str,
        request: &Request,
        ino: INodeNo,
        work: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(&Service, Result<T, Errno>) + Send + 'static,
    ) {
        let operation = self.operation(name);
        self.service.serve(operation, request, ino.0, work, answer);
    }
}

/// Methods of `Filesystem` that only ever answer with an errno.
macro_rules! refuse {
    ($($errno:ident { $($name:ident($($parameter:ty),*; $reply:ty))* })*) => {$($(
        fn $name(&self, _: &Request, $(_: $parameter,)* reply: $reply) {
            reply.error(Errno::$errno);
        }
    )*)*};
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        terms::agree(config, self.service.fs.kernel());
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let fs = self.fs();
        // All our names are UTF-8, so another one is surely unknown.
        let name = name.to_str().map(str::to_owned);
        self.serve(
            "lookup",
            request,
            parent,
            async move {
                let name = name.ok_or_else(|| Error::new(Kind::NotFound, "no such name"))?;
                fs.lookup(parent.0, &name).await
            },
            |service, result| match result {
                Ok(entry) => {
                    let attr = service.tell(&entry.attr);
                    reply.entry_with_ttls(&entry.attr.ttl, &entry.ttl, &attr, GENERATION);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.service.notice(|service| {
            service.sizes.forget(ino.0);
            service.directories.forget(ino.0);
            service.fs.forget(ino.0, count);
        });
    }

    fn getattr(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let fs = self.fs();
        self.serve(
            "getattr",
            request,
            ino,
            async move { fs.getattr(ino.0, handle.map(|handle| handle.0)).await },
            |service, result| match result {
                Ok(attr) => reply.attr(&attr.ttl, &service.tell(&attr)),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = self.fs();
        self.serve(
            "readlink",
            request,
            ino,
            async move { fs.readlink(ino.0).await },
            |_, result| match result {
                Ok(target) => reply.data(target.as_bytes()),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let operation = Operation {
            deadline: self.open_timeout,
            ..self.operation("open")
        };
        let service = Arc::clone(&self.service);
        let caller = convert::caller(request);
        self.service.serve(
            operation,
            request,
            ino.0,
            async move { opening::open(&service, ino.0, flags, &caller).await },
            |service, result| match result {
                Ok(Opening::Done(ready)) => opening::answer(service, ready, reply),
                Ok(Opening::LookAgain) => reply.error(Errno::ESTALE),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let fs = self.fs();
        let operation = Operation {
            ends_at_stop: false,
            // What the reader waits for may be as far off as a task.
            deadline: match fs.is_flowing(handle.0) {
                true => self.open_timeout,
                false => self.op_timeout,
            },
            ..self.operation("read")
        };
        self.service.serve(
            operation,
            request,
            ino.0,
            async move {
                match fs.read_now(handle.0, offset, size) {
                    Some(result) => result,
                    None => fs.read(handle.0, offset, size).await,
                }
            },
            |_, result| match result {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let service = Arc::clone(&self.service);
        self.serve(
            "release",
            request,
            ino,
            async move {
                opening::release(&service, ino.0, handle.0);
                Ok(())
            },
            |_, result| empty(reply, result),
        );
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let fs = self.fs();
        self.serve(
            "opendir",
            request,
            ino,
            async move {
                let handle = fs.opendir(ino.0).await?;
                Ok((handle, fs.directory(handle)?))
            },
            move |service, result| match result {
                Ok((handle, children)) => {
                    let flags = service.directories.open(ino.0, &children);
                    reply.opened(FileHandle(handle), flags);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let fs = self.fs();
        self.serve(
            "readdir",
            request,
            ino,
            async move { fs.directory(handle.0) },
            move |service, result| match result {
                Ok(children) => {
                    listing::fill(&mut reply, &service.fs, ino.0, offset, &children);
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let fs = self.fs();
        self.serve(
            "readdirplus",
            request,
            ino,
            async move { fs.directory(handle.0) },
            move |service, result| match result {
                Ok(children) => {
                    listing::fill_plus(&mut reply, service, ino.0, offset, &children);
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn releasedir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let fs = self.fs();
        self.serve(
            "releasedir",
            request,
            ino,
            async move {
                fs.releasedir(handle.0);
                Ok(())
            },
            move |service, result| {
                service.directories.close(ino.0);
                empty(reply, result);
            },
        );
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let fs = self.fs();
        self.serve(
            "statfs",
            request,
            ino,
            async move { Ok(fs.statfs()) },
            |_, result| match result {
                Ok(all) => {
                    let size = all.block_size;
                    reply.statfs(all.blocks, 0, 0, all.files, 0, size, NAME_MAX, size);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        // Labels, capabilities and access lists: there are none anywhere here, which is more than
        // that this file has none, and lets ls and its like stop asking.
        if !name.as_encoded_bytes().starts_with(USER_NAMESPACE) {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let fs = self.fs();
        let name = name.to_str().map(str::to_owned);
        self.serve(
            "getxattr",
            request,
            ino,
            async move {
                let name = name.ok_or_else(|| Error::new(Kind::NoAttribute, "no such name"))?;
                fs.getxattr(ino.0, &name).await
            },
            move |_, result| xattr(reply, size, result),
        );
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = self.fs();
        self.serve(
            "listxattr",
            request,
            ino,
            async move {
                let names = fs.listxattr(ino.0).await?;
                Ok(names
                    .iter()
                    .flat_map(|name| [name, "\0"])
                    .collect::<String>()
                    .into_bytes())
            },
            move |_, result| xattr(reply, size, result),
        );
    }

    refuse! {
        // Lasting: the kernel then seeks by the size it knows, and syncs and flushes nothing.
        ENOSYS {
            lseek(INodeNo, FileHandle, i64, i32; ReplyLseek)
            fsync(INodeNo, FileHandle, bool; ReplyEmpty)
            fsyncdir(INodeNo, FileHandle, bool; ReplyEmpty)
            flush(INodeNo, FileHandle, LockOwner; ReplyEmpty)
        }
        ENOTTY {
            ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32; ReplyIoctl)
        }
        EROFS {
            setattr(
                INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>,
                Option<TimeOrNow>, Option<SystemTime>, Option<FileHandle>, Option<SystemTime>,
                Option<SystemTime>, Option<SystemTime>, Option<BsdFileFlags>; ReplyAttr
            )
            mknod(INodeNo, &OsStr, u32, u32, u32; ReplyEntry)
            mkdir(INodeNo, &OsStr, u32, u32; ReplyEntry)
            unlink(INodeNo, &OsStr; ReplyEmpty)
            rmdir(INodeNo, &OsStr; ReplyEmpty)
            symlink(INodeNo, &OsStr, &Path; ReplyEntry)
            rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags; ReplyEmpty)
            link(INodeNo, INodeNo, &OsStr; ReplyEntry)
            create(INodeNo, &OsStr, u32, u32, i32; ReplyCreate)
            write(
                INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>;
                ReplyWrite
            )
            fallocate(INodeNo, FileHandle, u64, u64, i32; ReplyEmpty)
            setxattr(INodeNo, &OsStr, &[u8], i32, u32; ReplyEmpty)
            removexattr(INodeNo, &OsStr; ReplyEmpty)
        }
    }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// The size protocol of getxattr(2) and listxattr(2): size 0 asks for the length.
fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Errno>) {
    match result {
        Ok(value) if size == 0 => match u32::try_from(value.len()) {
            Ok(length) => reply.size(length),
            Err(_) => reply.error(Errno::E2BIG),
        },
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}
