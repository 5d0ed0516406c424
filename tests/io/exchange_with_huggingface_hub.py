"""Shares a cache of the hub with lorapp.

usage: exchange_with_huggingface_hub.py MODE CACHE, with HF_ENDPOINT and HF_HUB_OFFLINE in the environment
read      the snapshot of org/tiny that lorapp wrote, without a connection; prints its folder
download  the same files from HF_ENDPOINT into the cache; prints the folder
locked    waits half a second for the lock CACHE, which lorapp holds; fails if it gets it
hold      takes the lock CACHE, writes CACHE.held, and keeps the lock for a second
"""
import pathlib
import sys
import time

from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

mode, cache = sys.argv[1:]
WANTED = ["config.json", "generation_config.json", "model*.safetensors", "tokenizer*"]

if mode == "read":
    folder = snapshot_download("org/tiny", cache_dir=cache, local_files_only=True)
    assert try_to_load_from_cache("org/tiny", "config.json", cache_dir=cache) == folder + "/config.json"
    info = scan_cache_dir(cache)
    assert not info.warnings, info.warnings
    (repo,) = info.repos
    assert repo.repo_id == "org/tiny" and repo.repo_type == "model", repo
    (revision,) = repo.revisions
    assert revision.refs == {"main", "refs/pr/1"}, revision.refs
    assert str(revision.snapshot_path) == folder
    names = sorted(file.file_name for file in revision.files)
    assert names == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"], names
    for file in revision.files:
        assert file.blob_path.parent.name == "blobs" and file.size_on_disk == file.blob_path.stat().st_size
    print(folder)
elif mode == "download":
    print(snapshot_download("org/tiny", cache_dir=cache, allow_patterns=WANTED))
else:
    import filelock

    lock = filelock.FileLock(cache, mode=0o664)
    if mode == "locked":
        try:
            lock.acquire(timeout=0.5)
        except filelock.Timeout:
            sys.exit(0)
        sys.exit("the lock was free")
    with lock:
        pathlib.Path(cache + ".held").touch()
        time.sleep(1)
