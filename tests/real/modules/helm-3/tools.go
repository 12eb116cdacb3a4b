//go:build tools

package controlplane
