# package.mk - `make install` and `make deb`.  Included by the top Makefile.
DESTDIR     ?=
PREFIX      ?= /usr
DEB_VERSION ?= $(shell sed -n 's/^\#define WARREN_VERSION "\(.*\)"/\1/p' agent/version.h)
to          := $(DESTDIR)$(PREFIX)

.PHONY: install deb
install: programs ## DESTDIR=, PREFIX=/usr: programs, units, configuration (which is not overwritten)
	install -D -m 755 -t $(to)/sbin $(BUILD)/warrend deploy/warren-host-check
	install -D -m 755 -t $(to)/bin deploy/warrenctl
	install -D -m 644 deploy/warrenctl.bash-completion $(to)/share/bash-completion/completions/warrenctl
	install -D -m 755 deploy/new-token $(to)/sbin/warren-new-token
	install -D -m 755 -t $(to)/libexec/warren $(addprefix $(BUILD)/,warren-api warren-fetch warren-vmm) \
	    deploy/systemd/warren-vms-holder
	install -D -m 644 -t $(to)/lib/systemd/system deploy/systemd/warrend.service deploy/systemd/warren-vms.service
	install -D -m 644 deploy/systemd/system.slice.conf $(to)/lib/systemd/system/system.slice.d/warren.conf
	install -D -m 644 deploy/systemd/warren.sysusers $(to)/lib/sysusers.d/warren.conf
	install -D -m 644 deploy/systemd/warren.tmpfiles $(to)/lib/tmpfiles.d/warren.conf
	install -D -m 644 -t $(to)/share/doc/warren README.md ARCHITECTURE.md openapi.yaml
	install -D -m 644 -t $(to)/share/doc/warren/examples deploy/prometheus/warren.rules.yml
	install -D -m 644 LICENSE $(to)/share/doc/warren/copyright
	install -d $(to)/share/man/man8
	gzip -9nc deploy/package/warrend.8 >$(to)/share/man/man8/warrend.8.gz
	test -e $(DESTDIR)/etc/warren/warrend.conf || install -D -m 644 -t $(DESTDIR)/etc/warren deploy/warrend.conf

deb: programs ## DEB_VERSION=: the Debian package, build/warren_VERSION_amd64.deb
	deploy/package/build $(BUILD) $(DEB_VERSION)
