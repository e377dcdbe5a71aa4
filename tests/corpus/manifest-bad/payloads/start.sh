#!/bin/sh
exec qemu-system-aarch64
